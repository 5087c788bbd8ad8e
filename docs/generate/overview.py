"""The picture of the README: ancestor, templates, sizes, registry."""

from docs.generate.svg import Drawing

SIZES = ((34, 3), (44, 5), (54, 4), (64, 6), (76, 8))


def picture() -> str:
    """Left to right, with what happens on the way."""
    title = "One trained model is distilled into templates; sizes are built from them and registered"
    drawing = Drawing(760, 220, title)
    drawing.box(8, 30, 138, 110)
    drawing.text(77, 78, "Ancestor", bold=True, size=19)
    drawing.text(77, 104, "your trained ViT", faint=True, size=15)
    drawing.arrow((148, 85), (206, 85))
    drawing.text(177, 72, "distil", size=15)
    for index in range(12):
        drawing.box(216 + 32 * (index % 4), 38 + 32 * (index // 4), 26, 26)
    drawing.text(277, 166, "Templates", bold=True, size=19)
    drawing.text(277, 190, "shared by all sizes", faint=True, size=15)
    drawing.arrow((348, 85), (404, 85))
    drawing.text(376, 72, "build", size=15)
    x = 412.0
    for width, depth in SIZES:
        drawing.box(x, 140 - 13 * depth, width * 0.55, 13 * depth, soft=True)
        x += width * 0.55 + 6
    drawing.text(490, 166, "Any width and depth", bold=True, size=19)
    drawing.text(490, 190, "plain timm models", faint=True, size=15)
    drawing.arrow((594, 85), (646, 85))
    drawing.text(620, 72, "register", size=15)
    drawing.box(652, 30, 100, 110)
    drawing.text(702, 78, "Registry", bold=True, size=19)
    drawing.text(702, 104, "MLflow", faint=True, size=15)
    return drawing.svg()
