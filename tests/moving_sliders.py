"""A pytest plugin beside nbval: where a cell of a notebook has just made a slider, move it, in the same kernel.

Each control goes to its ends: every setting must give another picture, and moving it one live picture and no error.
`make nbval` loads it with `-p moving_sliders`. The cells that follow are still compared with what is stored, so a
figure with side effects on the notebook is noticed, too.
"""

from queue import Empty

import pytest

COMPARE = '''
def _pictures(made):
    """The draw function itself, whose exceptions nothing swallows: another picture at each end of each control."""
    import io

    from ipywidgets import FloatLogSlider

    draw, defaults = made.widget.f, {control._kwarg: control.value for control in made.widget.kwargs_widgets}

    def picture(**settings):
        draw(**settings).savefig(buffer := io.BytesIO(), format="png")
        return buffer.getvalue()

    for control in made.widget.kwargs_widgets:
        ends = [value for _, value in control._options_full] if hasattr(control, "options") else (
            [False, True] if isinstance(control.value, bool) else [control.min, control.max])
        if isinstance(control, FloatLogSlider):
            ends = [control.base**end for end in ends]
        settings = sorted({control.value, ends[0], ends[-1]})
        drawn = {picture(**defaults | {control._kwarg: setting}) for setting in settings}
        assert len(drawn) == len(settings), (
            f"{draw.__name__}: {control._kwarg} at {settings} gives {len(drawn)} pictures")


_moved = _
_pictures(_moved)
'''
COUNT = "print(len(_moved.widget.children) - 1)"
MOVE = """
def _move(control):
    from ipywidgets import FloatLogSlider

    if hasattr(control, "options"):
        control.index = len(control.options) - 1 if control.index == 0 else 0
    elif isinstance(control.value, bool):
        control.value = not control.value
    else:
        control.value = control.base**control.max if isinstance(control, FloatLogSlider) else control.max


_move(_moved.widget.children[{number}])
"""
PATIENCE = 300  # seconds for one piece of code


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    source = getattr(getattr(item, "cell", None), "source", "")
    if "interact(" in source:
        assert "_ = interact(" in source, "the slider's cell shows more than the slider"
        move_all(item.parent.kernel)
    return result


def move_all(kernel):
    """Move every control that `_` holds in the `kernel`. Fails with what the kernel says."""
    run(kernel, COMPARE)
    (count,) = [int(message["content"]["text"]) for message in run(kernel, COUNT) if message["msg_type"] == "stream"]
    assert 1 <= count <= 4, f"{count} controls"
    for number in range(count):
        shown = [message["msg_type"] for message in run(kernel, MOVE.format(number=number))]
        shown = [kind for kind in shown if kind in ("display_data", "execute_result", "stream")]
        assert shown == ["display_data"], f"moving control {number} shows {shown} instead of one picture"


def run(kernel, code):
    """What the kernel sends while it runs `code`, to its end. An error there is one here."""
    asked = kernel.execute_cell_input(code, allow_stdin=False)
    messages = []
    while True:
        try:
            message = kernel.get_message("iopub", timeout=PATIENCE)
        except Empty:
            pytest.fail(f"{PATIENCE} s without an answer to\n{code}")
        if message["parent_header"].get("msg_id") != asked:
            continue
        if message["msg_type"] == "error":
            pytest.fail("\n".join(message["content"]["traceback"]))
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return messages
        messages.append(message)
