"""placeholder"""


def synth() -> None: ...
