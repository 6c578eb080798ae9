"""Style and script of the page of a report, which stand in the page itself."""

from __future__ import annotations

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 0; }
header, main { padding: 0 28px; max-width: 1500px; }
h1 { font-size: 24px; margin: 24px 0 6px; }
h2 { font-size: 18px; margin: 32px 0 6px; border-bottom: 1px solid #ddd; padding-bottom: 4px; }
p { margin: 6px 0; max-width: 900px; }
.small, small { color: #666; font-size: 12px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; background: #f4f4f6; cursor: pointer; vertical-align: bottom; }
th, td { padding: 3px 9px; border-bottom: 1px solid #e6e6ea; }
td { white-space: nowrap; }
td:last-child { white-space: normal; min-width: 90px; }
tr:hover td { background: #f8f8fb; }
svg { display: block; }
.gallery { display: flex; flex-wrap: wrap; gap: 12px; }
figure { margin: 0; padding: 4px; border: 1px solid #ddd; }
figure.marked { border-color: #d55e00; }
figure img { height: 130px; margin-right: 3px; vertical-align: top; }
figcaption { font-size: 12px; max-width: 300px; overflow-wrap: anywhere; }
.missing { color: #888; }
.legend { max-width: none; }
.legend span { display: inline-block; margin-right: 12px; white-space: nowrap; }
.legend i { display: inline-block; width: 11px; height: 11px; margin-right: 4px; }
line { stroke-width: 2; }
line.g0 { stroke: #0072b2; } circle.g0 { fill: #0072b2; }
line.g1 { stroke: #d55e00; } circle.g1 { fill: #d55e00; }
line.g2 { stroke: #009e73; } circle.g2 { fill: #009e73; }
line.g3 { stroke: #cc79a7; } circle.g3 { fill: #cc79a7; }
line.g4 { stroke: #56b4e9; } circle.g4 { fill: #56b4e9; }
line.g5 { stroke: #e69f00; } circle.g5 { fill: #e69f00; }
@media print { .wide { overflow: visible; } tr, figure { break-inside: avoid; } }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  table.querySelectorAll("th").forEach((head, i) => head.addEventListener("click", () => {
    const body = table.tBodies[0], up = head.dataset.up !== "1";
    const key = row => {
      const cell = row.cells[i], span = cell.querySelector("[data-sort]");
      return span ? Number(span.dataset.sort) : cell.textContent;
    };
    const rows = [...body.rows].sort((a, b) => {
      const x = key(a), y = key(b);
      const less = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
      return up ? less : -less;
    });
    table.querySelectorAll("th").forEach(other => delete other.dataset.up);
    head.dataset.up = up ? "1" : "0";
    body.append(...rows);
  }));
}
"""
