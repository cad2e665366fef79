"""onnxruntime may die: the command says at which model and sample."""

import signal

import pytest

from tests.cli.doomed import doomed

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (
            "InferenceSession._create_inference_session",
            "qdq-int8.onnx: onnxruntime crashed while loading it: Segm",
        ),
        ("InferenceSession.run", "sample 0: onnxruntime crashed: Segmentation fault (SIGSEGV)"),
    ],
)
def test_onnxruntime_that_dies_is_one_line(models, tmp_path, method, said):
    call = ("onnxruntime", method)
    pair = (models / "float.onnx", models / "qdq-int8.onnx", "--inputs", models / "x.npy")
    done = doomed(tmp_path, signal.SIGSEGV, 1, call, "capture", *pair, "-o", "pairs.npz")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
