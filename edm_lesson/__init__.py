"""EDM diffusion models (Karras et al. 2022, arXiv 2206.00364) in small, finished pieces: Table 1 as modules.

    from edm_lesson.checkpoints import load_denoiser
    from edm_lesson.samplers import SeededNoise, edm_sampler

    denoiser = load_denoiser("lesson", device="cpu")
    digits = edm_sampler(denoiser, SeededNoise(range(8)).latents((1, 28, 28)), num_steps=18)

`schedules` (noise levels), `preconditioning` (the denoiser D), `losses`, `networks` (the raw network F) and `samplers`
are the rows of that table; `designs` puts them together; `training`, `data`, `checkpoints` and `config` make it run.
"""

__version__ = "0.1.0"


class LessonError(RuntimeError):
    """Something that the reader can mend: the message says what was wrong, with the value, and what to do."""


def visible(text: str) -> str:
    """`text` in one line: what doesn't print, such as line breaks and a terminal's escapes, is spelled as in Python."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
