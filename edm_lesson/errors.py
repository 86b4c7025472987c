"""The one error whose message is for people."""


class LessonError(RuntimeError):
    """Something that the reader can mend: the message says what was wrong, with the value, and what to do."""
