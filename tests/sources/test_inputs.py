"""Samples for live models: which arrays are taken, in what shape and type, and what is refused."""

import contextlib
import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdebug.errors import QdebugError
from qdebug.sources.inputs import InputSpec, read_samples

F32 = np.dtype(np.float32)
I32 = np.dtype(np.int32)
IMAGE = InputSpec("image", (1, 2, 3), F32)
IDS = InputSpec("ids", (None, 4), I32)


def image(samples=5, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, 2, 3)).astype(np.float32)


def npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def refused(path, specs, limit=None):
    """The message of what is refused, in the reading or in the first pass."""
    with pytest.raises(QdebugError) as caught:
        list(read_samples(str(path), specs, limit))
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_a_run_takes_one_sample_with_its_batch_axis(tmp_path):
    values = image()
    samples = read_samples(npz(tmp_path / "d.npz", image=values), [IMAGE])
    assert samples.count == len(samples) == 5
    for taken, expected in zip(samples, values, strict=True):
        assert taken[0].shape == (1, 2, 3)
        assert taken[0].dtype == np.float32
        np.testing.assert_array_equal(taken[0][0], expected)


def test_samples_can_be_gone_through_again(tmp_path):
    samples = read_samples(npz(tmp_path / "d.npz", image=image()), [IMAGE])
    next(iter(samples))  # a pass that is given up
    first, second = list(samples), list(samples)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_order_of_the_elements_in_the_file_does_not_matter(tmp_path, order, save):
    save(tmp_path / "d.npz", image=np.asarray(image(), order=order))
    np.save(tmp_path / "d.npy", np.asarray(image(), order=order))
    for name in ("d.npz", "d.npy"):
        taken = [run[0] for run in read_samples(str(tmp_path / name), [IMAGE])]
        np.testing.assert_array_equal(np.concatenate(taken), image())


def test_arrays_are_found_by_name_whatever_their_order(tmp_path):
    path = npz(tmp_path / "d.npz", ids=np.arange(8).reshape(2, 4), label=[1, 2], image=image(2))
    (first, _) = read_samples(path, [IMAGE, IDS])
    np.testing.assert_array_equal(first[0][0], image(2)[0])
    np.testing.assert_array_equal(first[1], [[0, 1, 2, 3]])
    assert first[1].dtype == np.int32


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ("image", "serving_default_image:0"),
        ("serving_default_image:0", "image"),
        ("image:0", "image"),
    ],
)
def test_tensorflows_decoration_of_names_does_not_matter(tmp_path, stored, wanted):
    path = npz(tmp_path / "d.npz", **{"other": np.zeros(5), stored: image()})
    (first, *_) = read_samples(path, [InputSpec(wanted, IMAGE.shape, F32)])
    np.testing.assert_array_equal(first[0][0], image()[0])


def test_arrays_of_other_names_are_taken_in_order(tmp_path):
    np.savez(tmp_path / "d.npz", image(3), np.arange(12).reshape(3, 4))
    (first, *_) = read_samples(str(tmp_path / "d.npz"), [IMAGE, IDS])
    np.testing.assert_array_equal(first[0][0], image(3)[0])
    np.testing.assert_array_equal(first[1], [[0, 1, 2, 3]])


def test_a_model_with_a_fixed_batch_takes_as_many_samples_a_run(tmp_path):
    path = npz(tmp_path / "d.npz", image=image(10))
    samples = read_samples(path, [InputSpec("image", (4, 2, 3), F32)])
    assert samples.count == 2
    taken = [run[0] for run in samples]
    assert [run.shape for run in taken] == [(4, 2, 3)] * 2
    np.testing.assert_array_equal(np.concatenate(taken), image(10)[:8])
    assert len(samples.notes) == 1
    assert "last 2 of 10 samples" in samples.notes[0]


def test_samples_may_each_have_the_whole_input_shape(tmp_path):
    path = npz(tmp_path / "d.npz", image=image()[:, None], step=np.arange(5.0))
    specs = [IMAGE, InputSpec("step", (), F32)]
    for place, (one, step) in enumerate(read_samples(path, specs)):
        assert one.shape == (1, 2, 3)
        assert step.shape == ()
        assert step == place


def test_lengths_that_the_model_leaves_open_are_the_files(tmp_path):
    path = npz(tmp_path / "d.npz", x=np.zeros((3, 7, 5)))
    (first, *_) = read_samples(path, [InputSpec("x", (None, None, 5), F32)])
    assert first[0].shape == (1, 7, 5)


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (3, 3), (99, 5), (None, 5)])
def test_a_limit_takes_the_first_samples(tmp_path, limit, count):
    samples = read_samples(npz(tmp_path / "d.npz", image=image()), [IMAGE], limit)
    assert samples.count == count
    np.testing.assert_array_equal(np.concatenate([run[0] for run in samples]), image()[:count])


@pytest.mark.parametrize("dtype", ["float64", ">f4", "float16", "int8", "uint8", "bool"])
def test_values_are_converted_to_the_inputs_type(tmp_path, dtype):
    values = (image() > 0).astype(dtype)
    (first, *_) = read_samples(npz(tmp_path / "d.npz", image=values), [IMAGE])
    assert first[0].dtype == np.float32
    np.testing.assert_array_equal(first[0][0], values[0].astype(float))


@pytest.mark.parametrize(
    ("arrays", "specs", "said"),
    [
        ({"imgae": image(), "ids": np.ones((5, 4), int)}, [IMAGE, IDS], ["'image'", "'imgae'?"]),
        ({"a": image(), "b": image()}, [IMAGE], ["2 arrays", "expected 1", "'image'"]),
        ({"a": image()}, [IMAGE, IDS], ["1 array (", "expected 2", "'image', 'ids'"]),
        ({"image": image()[..., None]}, [IMAGE], ["(5, 2, 3, 1)", "(samples, 2, 3)"]),
        ({"image": image()[0]}, [IMAGE], ["(2, 3)", "(samples, 2, 3)"]),
        ({"image": image()[:, :1]}, [IMAGE], ["(5, 1, 3)", "(samples, 2, 3)"]),
        ({"image": np.float32(1)}, [IMAGE], ["shape ()", "(samples, 2, 3)"]),
        ({"image": image().astype(str)}, [IMAGE], ["'image'", "found <U", "expected float32"]),
        ({"image": image().astype(complex)}, [IMAGE], ["complex128", "expected float32"]),
        ({"ids": np.ones((5, 4))}, [IDS], ["'ids'", "float64", "expected int32"]),
        ({"ids": np.full((5, 4), 2**40)}, [IDS], ["sample 0", "1099511627776", "int32"]),
        ({"image": image(0)}, [IMAGE], ["0 samples"]),
        ({"image": image(3)}, [InputSpec("image", (4, 2, 3), F32)], ["3 samples", "4 or more"]),
        ({"image": image(5), "ids": np.ones((4, 4), int)}, [IMAGE, IDS], ["4 samples", ": 5"]),
        ({"image": np.full((2, 2, 3), 1e300)}, [IMAGE], ["sample 0", "1e+300", "finite float32"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, specs, said):
    npz(tmp_path / "d.npz", **arrays)
    message = refused(tmp_path / "d.npz", specs)
    for words in said:
        assert words in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_with_their_sample(tmp_path, value):
    values = image()
    values[3, 1, 2] = value
    np.save(tmp_path / "d.npy", values)
    assert f"sample 3: found {value}" in refused(tmp_path / "d.npy", [IMAGE])
    batch = [InputSpec("image", (2, 2, 3), F32)]
    assert f"sample 3: found {value}" in refused(tmp_path / "d.npy", batch)


def test_a_missing_file_is_refused(tmp_path):
    assert "No such file" in refused(tmp_path / "none.npz", [IMAGE])
    (tmp_path / "folder.npz").mkdir()
    assert "Is a directory" in refused(tmp_path / "folder.npz", [IMAGE])


def test_one_array_for_several_inputs_is_refused(tmp_path):
    np.save(tmp_path / "d.npy", image())
    assert "found one array, expected 2" in refused(tmp_path / "d.npy", [IMAGE, IDS])


@pytest.mark.parametrize("content", [b"", b"PK", b"a,b\n1,2\n", b"\x93NUMPY", b"\x93NUMPY\x01\0zz"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "d.npy").write_bytes(content)
    assert "expected an .npz or .npy file" in refused(tmp_path / "d.npy", [IMAGE])


def test_pickled_objects_are_refused(tmp_path):
    objects = np.array([[{}]] * 5, dtype=object)
    np.save(tmp_path / "d.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "d.npz", image=objects)
    for name in ("d.npy", "d.npz"):
        assert "objects" in refused(tmp_path / name, [IMAGE])


def stored(values, name="d.npy"):
    buffer = io.BytesIO()
    if name.endswith("y"):
        np.save(buffer, values)
    else:
        np.savez(buffer, image=values)
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["d.npy", "d.npz"])
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_broken_files_are_refused_or_read_never_worse(tmp_path_factory, name, data):
    content = bytearray(stored(image(), name))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    path = tmp_path_factory.mktemp("broken") / name
    path.write_bytes(bytes(content[:end]))
    with contextlib.suppress(QdebugError):
        list(read_samples(str(path), [IMAGE]))


def test_two_arrays_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("image.npy", stored(image()))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("image.npy", stored(image()))
    assert "2 arrays named like model input 'image'" in refused(tmp_path / "d.npz", [IMAGE])


@pytest.mark.parametrize("name", ["d.npy", "d.npz"])
def test_memory_does_not_grow_with_the_samples(tmp_path, name):
    """Of 10 kB each."""
    peaks = []
    for count in (20, 120):
        (tmp_path / name).write_bytes(stored(np.zeros((count, 50, 50), np.float32), name))
        tracemalloc.start()
        for _ in read_samples(str(tmp_path / name), [InputSpec("image", (1, 50, 50), F32)]):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 100_000  # bytes; the samples are 1,000,000 more


STATE = InputSpec("h", (2, None, 4), F32)
RATE = InputSpec("sr", (), I32)


def test_a_state_takes_one_axis_more_and_a_number_takes_one(tmp_path):
    states = np.arange(5 * 8, dtype=np.float32).reshape(5, 2, 1, 4)
    path = npz(tmp_path / "d.npz", image=image(), h=states, sr=np.full(5, 16000))
    for number, (_, h, sr) in enumerate(read_samples(path, [IMAGE, STATE, RATE])):
        np.testing.assert_array_equal(h, states[number])
        assert (sr.shape, int(sr)) == ((), 16000)


@pytest.mark.parametrize("shape", [(2, 1, 4), (2, 5, 4), (10, 1, 3)])
def test_the_error_says_how_a_state_is_given(tmp_path, shape):
    path = tmp_path / "d.npz"
    npz(path, image=image(), h=np.zeros(shape, np.float32))
    assert refused(path, [IMAGE, STATE]).endswith(
        "; if the first axis of 'h' is not the batch, as in a state, give it as "
        "(samples, 2, any, 4)"
    )


def test_an_input_that_is_as_long_as_its_samples_gets_no_such_hint(tmp_path):
    path = tmp_path / "d.npz"
    npz(path, ids=np.zeros((2, 3), np.int32))
    assert "state" not in refused(path, [IDS])
    npz(path, image=np.zeros((5, 2, 4), np.float32))
    assert "state" not in refused(path, [IMAGE])
