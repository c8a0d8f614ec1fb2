"""Formulas drawn by the KaTeX in ``_static/katex``, so that a page needs no network."""

from docutils import nodes


def setup(app):
    """Registers the renderer that `html_math_renderer` names."""
    app.add_html_math_renderer("katex", (_inline, None), (_block, None))
    app.add_css_file("katex/katex.min.css")
    app.add_js_file("katex/katex.min.js", loading_method="defer")
    app.add_js_file("formulas.js", loading_method="defer")
    return {"parallel_read_safe": True}


def _inline(writer, node):
    writer.body.append(f'<span class="math notranslate">{writer.encode(node.astext())}</span>')
    raise nodes.SkipNode


def _block(writer, node):
    formula = node.astext().strip()
    if not formula.startswith("\\begin{") and ("\\\\" in formula or "&" in formula):
        formula = f"\\begin{{aligned}}{formula}\\end{{aligned}}"
    writer.body.append(f'<div class="math notranslate">{writer.encode(formula)}</div>')
    raise nodes.SkipNode
