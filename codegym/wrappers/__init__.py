"""Other action spaces over `CodeGen-v0`, its tasks, judge and rewards: programs, tokens and choices.

Each wraps the line environment, reward wrapper included, and sends it lines.
"""

from codegym.wrappers.choices import LineChoices
from codegym.wrappers.programs import ProgramActions
from codegym.wrappers.tokens import TokenActions

__all__ = ["LineChoices", "ProgramActions", "TokenActions"]
