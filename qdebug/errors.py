"""QdebugError and its subclasses: every error that a user can fix."""


class QdebugError(Exception):
    """An error that the user can fix; its message says in one line what to fix."""


class MissingExtraError(QdebugError):
    """The request needs a library that is not installed.

    >>> str(MissingExtraError("ONNX models need", "onnx"))
    "ONNX models need an extra: pip install 'qdebug[onnx]'"
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} an extra: pip install 'qdebug[{extra}]'")


class OptionError(QdebugError):
    """An option that does not apply to the given source.

    >>> str(OptionError("signature", "LiteRT models (.tflite)"))
    "option 'signature' goes with LiteRT models (.tflite)"
    """

    def __init__(self, option: str, goes_with: str) -> None:
        super().__init__(f"option '{option}' goes with {goes_with}")
        self.option, self.goes_with = option, goes_with


class FieldError(QdebugError):
    """One field of one layer has an invalid value.

    Raised where the fact is known (`affine` knows no layer and no file). A caller that knows the
    file and the layer adds them with `locate`.

    >>> str(FieldError("scale", found="-0.5", expected="a finite number above 0"))
    "field 'scale': found -0.5, expected a finite number above 0"
    """

    def __init__(self, field: str, *, found: str, expected: str) -> None:
        super().__init__(f"field '{field}': found {found}, expected {expected}")


class UnknownLayerError(QdebugError, KeyError):
    """No layer has this name. It is also the `KeyError` of a mapping."""

    __str__ = Exception.__str__  # KeyError would put the message into quotation marks


class LayerError(QdebugError):
    """A layer that cannot be used; the others still can."""


def locate(error: Exception | str, *, file: str = "", layer: str) -> LayerError:
    """`error` with its file, if there is one, and its layer in front.

    >>> str(locate(FieldError("bits", found="9", expected="2 to 8"), file="a.npz", layer="conv"))
    "a.npz: layer 'conv': field 'bits': found 9, expected 2 to 8"
    """
    return LayerError(f"{file}{': ' if file else ''}layer '{layer}': {error}")
