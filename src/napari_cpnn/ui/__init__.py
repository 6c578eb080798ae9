"""napari: reader, layers and docks. The only folder that imports napari, qtpy, magicgui or superqt."""
