"""QdebugError and its kinds: every message that a user can act on."""


class QdebugError(Exception):
    """Something the user can put right; the message is one line that says what and how."""


class MissingExtraError(QdebugError):
    """What is asked for needs a library that is not installed.

    >>> str(MissingExtraError("ONNX models need", "onnx"))
    "ONNX models need an extra: pip install 'qdebug[onnx]'"
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} an extra: pip install 'qdebug[{extra}]'")


class OptionError(QdebugError):
    """An option that means nothing for what was given.

    >>> str(OptionError("signature", "LiteRT models (.tflite)"))
    "option 'signature' goes with LiteRT models (.tflite)"
    """

    def __init__(self, option: str, goes_with: str) -> None:
        super().__init__(f"option '{option}' goes with {goes_with}")
        self.option, self.goes_with = option, goes_with


class FieldError(QdebugError):
    """One field of one layer is not what it must be.

    Raised where the fact is known (`affine` knows no layer and no file); whoever knows the file
    and the layer puts them in front with `locate`.

    >>> str(FieldError("scale", found="-0.5", expected="a finite number above 0"))
    "field 'scale': found -0.5, expected a finite number above 0"
    """

    def __init__(self, field: str, *, found: str, expected: str) -> None:
        super().__init__(f"field '{field}': found {found}, expected {expected}")


class UnknownLayerError(QdebugError, KeyError):
    """A name that is no layer's, asked for as of a mapping."""

    __str__ = Exception.__str__  # KeyError would put the message into quotation marks


class LayerError(QdebugError):
    """A layer that cannot be used; the others still can."""


def locate(error: Exception | str, *, file: str = "", layer: str) -> LayerError:
    """`error` with its layer, and its file where it is in one, in front.

    >>> str(locate(FieldError("bits", found="9", expected="2 to 8"), file="a.npz", layer="conv"))
    "a.npz: layer 'conv': field 'bits': found 9, expected 2 to 8"
    """
    return LayerError(f"{file}{': ' if file else ''}layer '{layer}': {error}")
