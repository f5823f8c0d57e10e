"""The one exception that reaches a person: a cause, a next step and an exit status."""

import sys

NEXT = "harp-next"
"""Key of the trailing metadata by which a scheduler says what to do about a refusal."""


class HarpError(Exception):
    """A failure told in one line: what went wrong and what to do next.

    `exit_code` follows the convention of wrappers (125 own failure, 126 cannot execute, 127 not
    found) for `harp-run`, and the usual 1 (failure), 2 (usage), 6 (unavailable) for `harp`.
    """

    def __init__(self, cause: str, next_step: str = "", exit_code: int = 1) -> None:
        super().__init__(cause)
        self.cause = cause
        self.next_step = next_step
        self.exit_code = exit_code

    def line(self, program: str) -> str:
        """The message as one line of printable text, prefixed by the command that prints it."""
        text = f"{program}: {self.cause}"
        if self.next_step:
            text = f"{text.rstrip('.')}. Next: {self.next_step}"
        return printable(text)


def printable(text: str) -> str:
    """`text` without line breaks and terminal escapes, safe to show whoever it came from."""
    return "".join(c if c.isprintable() else " " for c in text)


def cause_of(error: OSError) -> str:
    """What the system says, and of which file."""
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}"


def tell(program: str, error: HarpError) -> int:
    """Prints the error's line on stderr and returns the exit status for it."""
    print(error.line(program), file=sys.stderr)
    return error.exit_code
