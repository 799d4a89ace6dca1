"""Tracebacks without our own frames."""


def without_our_frame(caught: BaseException) -> BaseException:
    """Return an error that the calling frame has caught, with a traceback that leaves it out.

    The traceback then starts in the user's code, and does not hold on to our frame, which holds
    on to the error. An error class may override ``with_traceback``; that is not called.
    """
    traceback = caught.__traceback__
    return BaseException.with_traceback(caught, traceback and traceback.tb_next)
