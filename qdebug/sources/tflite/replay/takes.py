"""What each operator that can be replayed reads: codes, a bias, numbers. Computes nothing."""

# One letter an input, in order: q codes, b a bias that may be left out, i integers, x codes or
# floats; q+ is one or more of them. Inputs after these (a new shape, say) change no code.
TAKES = {
    **dict.fromkeys(("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"), "qqb"),
    "TRANSPOSE_CONV": "iqqb",  # the output's shape, the weights, the activations, the bias
    **dict.fromkeys(("BATCH_MATMUL", "ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"), "qq"),
    "QUANTIZE": "x",
    **dict.fromkeys(("RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "HARD_SWISH"), "q"),
    **dict.fromkeys(("LOGISTIC", "TANH", "SOFTMAX", "AVERAGE_POOL_2D", "MAX_POOL_2D"), "q"),
    **dict.fromkeys(("MEAN", "REDUCE_MAX", "REDUCE_MIN"), "qi"),
    **dict.fromkeys(("CONCATENATION", "PACK"), "q+"),
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "BROADCAST_TO", "UNPACK"), "q"),
    **dict.fromkeys(("TRANSPOSE", "PAD", "MIRROR_PAD", "GATHER", "TILE", "REVERSE_V2"), "qi"),
    "PADV2": "qiq",
    "SLICE": "qii",
    "STRIDED_SLICE": "qiii",
    "SPLIT": "iq",
    "SPLIT_V": "qii",
    "RESIZE_NEAREST_NEIGHBOR": "qi",
    **dict.fromkeys(("SPACE_TO_DEPTH", "DEPTH_TO_SPACE"), "q"),
}
# Operators that write more than one tensor.
MANY_OUTPUTS = ("SPLIT", "SPLIT_V", "UNPACK")
# Operators that multiply activations by weights, and the place of the activations.
ACTIVATIONS_OF = {
    **dict.fromkeys(("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "BATCH_MATMUL"), 0),
    "TRANSPOSE_CONV": 2,
}


def bias_of(op: str) -> int | None:
    """The place of an operator's bias; None if it has none.

    >>> bias_of("TRANSPOSE_CONV"), bias_of("ADD")
    (3, None)
    """
    place = TAKES[op].find("b")
    return None if place < 0 else place


def taken(op: str, count: int) -> str:
    """The letter of each of an operator's first inputs, where it has `count` of them.

    >>> taken("ADD", 2), taken("CONCATENATION", 3)
    ('qq', 'qqq')
    """
    letters = TAKES[op]
    return letters[0] * max(count, 1) if letters.endswith("+") else letters
