"""The one exception that means: the user can mend this."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what was asked or given.

    The message is one line that says what came, what is legal and what to do next. The command line prints it
    without a traceback and exits with code 2.
    """
