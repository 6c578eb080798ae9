"""napari plugin: readers, layers and docks. The only package that imports napari, qtpy or superqt."""
