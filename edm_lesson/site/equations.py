"""TeX to MathML, which browsers draw themselves: latex2mathml, and what it leaves to be wished for."""

import re
from xml.etree import ElementTree

THIN = "0.167em"
NAMESPACE = ' xmlns="http://www.w3.org/1998/Math/MathML"'
SCRIPTS = ("msub", "msup", "msubsup", "munder", "mover", "munderover")


def equation(tex, display="block"):
    """The MathML of `tex`, "block" or "inline", as text. Raises `ValueError` for a command that isn't known."""
    from latex2mathml.converter import convert

    prepared = re.sub(r"\\(mathbb|mathbf|mathcal) (\w)", r"\\\1{\2}", tex).replace(r"\!", "")
    try:
        root = ElementTree.fromstring(convert(prepared, display=display).replace(NAMESPACE, ""))
    except Exception as error:
        raise ValueError(f"The equation {tex!r} can't be read: {error}") from error
    for element in list(root.iter()):
        if element.tag == "mo" or (element.text or "") in ("~", ";", "′"):
            _set_operator(element)
    for element in list(root.iter()):
        _attach_prime(element)
        _wrap_fence(element)
        _space_names(element)
    unknown = [element.text for element in root.iter() if "\\" in (element.text or "")]
    if unknown:
        raise ValueError(f"The equation {tex!r} uses {unknown[0]}, which can't be drawn; write it in other words.")
    root.set("alttext", " ".join(tex.split()))
    return ElementTree.tostring(root, encoding="unicode")


def _set_operator(element):
    """Spacing and size of one operator, as TeX has them."""
    element.tag = "mo"
    element.text = {"~": "∼", r"\|": "‖"}.get(element.text, element.text)
    tight = {"lspace": "0", "rspace": "0"}
    if "minsize" in element.attrib:
        side = "prefix" if element.text in "([{" else "postfix"
        element.attrib.update(tight, form=side, stretchy="true", symmetric="true")
    elif element.text == "‖":
        element.attrib.update(tight, stretchy="false")
    elif element.text in ("/", "′"):
        element.attrib.update(tight)


def _attach_prime(element):
    """A prime belongs to its letter, full size: as a script it would be raised twice."""
    if element.tag in ("msup", "msubsup") and element[-1].text == "′":
        base, *index, prime = list(element)
        letter = ElementTree.Element("mrow")
        letter.extend([base, prime])
        for child in list(element):
            element.remove(child)
        element.extend([letter, *index])
        element.tag = "msub" if index else "mrow"


def _wrap_fence(element):
    """A large bracket with a script keeps its size only in a row of its own."""
    if element.tag in SCRIPTS and "minsize" in element[0].attrib:
        row = ElementTree.Element("mrow")
        row.append(element[0])
        element.remove(element[0])
        element.insert(0, row)


def _space_names(row):
    """Thin spaces around ln, sin, softmax and the like, except before brackets, after operators and at the ends."""
    if row.tag != "mrow":
        return
    children = list(row)
    for child in children:
        row.remove(child)
    for before, child, after in zip([None, *children], children, [*children[1:], None], strict=False):
        name = _name(child)
        if name is not None:
            name.tag = "mi"
        if name is not None and before is not None and before.tag not in ("mo", "mspace"):
            row.append(ElementTree.Element("mspace", width=THIN))
        row.append(child)
        if name is not None and after is not None and after.tag not in ("mo", "mspace") and _name(after) is None:
            row.append(ElementTree.Element("mspace", width=THIN))


def _name(element):
    """The part of `element` that is a name of several letters, such as ln in ln²; None where there is none."""
    while element.tag in SCRIPTS:
        element = element[0]
    text = element.text or ""
    return element if element.tag in ("mi", "mo") and len(text) > 1 and text.isascii() and text.isalpha() else None
