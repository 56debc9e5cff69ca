"""What can go wrong while serving, as errors that carry one sentence for the client."""


class RequestError(Exception):
    """The request cannot be answered; `status` is the HTTP status, `sentence` is all that the client is told."""

    def __init__(self, sentence: str, *, status: int = 400) -> None:
        self.sentence = sentence
        self.status = status
        super().__init__(sentence)


class StartError(Exception):
    """The server cannot start; `code` is a short word for machines, `sentence` is for people."""

    def __init__(self, code: str, sentence: str) -> None:
        self.code = code
        self.sentence = sentence
        super().__init__(sentence)


def first_line(error: BaseException, *, limit: int = 300) -> str:
    """Return `Type: first line of the message`, cut to `limit` characters: never a traceback."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
