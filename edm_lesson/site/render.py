"""Markdown and notebooks to HTML: equations drawn, code coloured, headings with anchors, sliders as pictures."""

import base64
import re
import struct
from dataclasses import dataclass, field
from html import escape, unescape
from itertools import groupby, pairwise

from edm_lesson.course.run import WIDGET_VIEW, widget_models
from edm_lesson.site.equations import equation

# Code, which is left alone; $$equation$$; $equation$ within a line.
EQUATION = re.compile(
    r"(```.*?```|`[^`\n]*`)|\$\$(.+?)\$\$|(?<![\\\w$])\$(?!\s)([^$\n]+?)(?<!\s)\$(?![\w$])", re.DOTALL
)


@dataclass
class Page:
    """A page of the site: its HTML, its headings (level, anchor, HTML), its pictures {name: PNG} and its notebook."""

    name: str
    html: str = ""
    notebook: str | None = None
    headings: list = field(default_factory=list)
    pictures: dict = field(default_factory=dict)

    @property
    def title(self):
        """The words of its first heading."""
        return next((unescape(re.sub(r"<[^>]+>", "", words)) for _, _, words in self.headings), self.name)


def render_markdown(text, page):
    """Append `text` to `page`."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"highlight": lambda code, language, _: highlight(code, language)}).enable(
        "table"
    )
    apart = re.sub(r"(</summary>)(?=\S)|(?<=\S)(?=</details>)", r"\1\n\n", text)  # so that what is folded is Markdown
    tokens = parser.parse(EQUATION.sub(_draw, apart))
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            anchor = anchor_of(inline.content, [used for _, used, _ in page.headings])
            opening.attrSet("id", anchor)
            words = parser.renderer.renderInline(inline.children, parser.options, {})
            page.headings.append((int(opening.tag[1]), anchor, words))
    html = parser.renderer.render(tokens, parser.options, {})
    wide = '<div class="wide" role="region" aria-label="Table" tabindex="0"><table>'
    page.html += html.replace("<table>", wide).replace("</table>", "</table></div>")


def _draw(found):
    code, block, inline = found.groups()
    if block:
        return f'<div class="equation">{equation(block)}</div>\n\n'
    return code or equation(inline, "inline")


def anchor_of(heading, used=()):
    """The fragment that code hosts make of a heading; a number is added where it is `used` already."""
    anchor = re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")
    same = sum(bool(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other)) for other in used)
    return f"{anchor}-{same}" if same else anchor


def highlight(code, language="python"):
    """Code as HTML, its words marked for the style sheet; plain text for a language that isn't known."""
    from pygments import highlight as mark
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import TextLexer, get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language or "text", stripnl=False)
    except ClassNotFound:
        lexer = TextLexer(stripnl=False)
    return f'<pre class="code"><code>{mark(code.rstrip(), lexer, HtmlFormatter(nowrap=True)).rstrip()}</code></pre>'


def render_notebook(notebook, page):
    """Append all cells of `notebook`, with their outputs, to `page`."""
    widgets = widget_models(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            render_markdown(cell.source, page)
        elif cell.cell_type == "code":
            shown = "".join(_output(output, widgets, page) for output in _joined(cell.outputs))
            page.html += f'<div class="cell">{highlight(cell.source)}{shown}</div>\n'


def _joined(outputs):
    """Outputs, where what was printed piece by piece is one."""
    for name, group in groupby(outputs, lambda output: output.get("name")):
        if name is None:
            yield from group
        else:
            yield {"text": "".join(output["text"] for output in group)}


def _output(output, widgets, page):
    """One output of a cell: its picture, else its widget, else its text."""
    data = output.get("data", {})
    if "image/png" in data:
        return f"<figure>{_picture(output, page)}</figure>"
    widget = widgets.get(data.get(WIDGET_VIEW, {}).get("model_id"))
    if widget and (slider := _slider(widget, widgets, page)):
        return slider
    if "text/html" in data:
        return f'<div class="wide" role="region" aria-label="Output" tabindex="0">{data["text/html"]}</div>'
    text = output.get("text") or data.get("text/plain") or "\n".join(output.get("traceback", []))
    return f'<pre class="output">{escape(text.rstrip())}</pre>' if text.strip() else ""


def _picture(output, page):
    """The picture of `output`, kept in `page`, with its words or, where nobody wrote any, those of its section."""
    png = base64.b64decode(output["data"]["image/png"])
    name = f"pictures/{page.name.removesuffix('.html')}-{len(page.pictures) + 1:02}.png"
    page.pictures[name] = png
    width, height = struct.unpack(">II", png[16:24])
    section = unescape(re.sub(r"<[^>]+>", "", page.headings[-1][2])) if page.headings else page.name
    words = output.get("metadata", {}).get("image/png", {}).get("alt") or f"Figure in the section “{section}”"
    return f'<img src="{name}" alt="{escape(words)}" width="{width}" height="{height}" loading="lazy">'


def _slider(widget, widgets, page):
    """A slider's stored picture, with a sentence on how it moves; nothing of a widget without outputs."""
    children = [widgets[child.removeprefix("IPY_MODEL_")] for child in widget["state"].get("children", [])]
    outputs = [output for child in children for output in child["state"].get("outputs", [])]
    if not outputs:
        return ""
    shown = "".join(_output(output, widgets, page) for output in outputs)
    controls = [child["state"] for child in children if "description" in child["state"]]
    settings = ", ".join(f"<code>{escape(state['description'])}</code> = {escape(_value(state))}" for state in controls)
    move = "it moves with its control" if len(controls) == 1 else "it moves with its controls"
    return f'<div class="slider">{shown}<p>Shown for {settings}; in JupyterLab {move}.</p></div>'


def _value(state):
    """What a control is set to, as it shows it."""
    if "_options_labels" in state:
        return state["_options_labels"][state["index"]]
    if isinstance(state["value"], bool):
        return "on" if state["value"] else "off"
    return format(state["value"], state.get("readout_format", ""))
