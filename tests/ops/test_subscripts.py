"""`x[key]` and `x[key] = value`, against PyTorch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop.errors import ArgumentError, MutationError
from polyop.ops.creation import from_numpy, tensor
from polyop.ops.views import broadcast_to

SHAPE = (3, 4, 5)


def data():
    return np.arange(60.0).reshape(SHAPE)


def part(size):
    ints = st.integers(-size, size - 1)
    return st.one_of(
        ints,
        st.slices(size).filter(lambda s: s.step is None or s.step > 0),
        st.lists(ints, min_size=2, max_size=2),
        st.just(Ellipsis),
        st.none(),
    )


@st.composite
def keys(draw):
    """Draw keys with at most one ellipsis."""
    parts, axis = [], 0
    for _ in range(draw(st.integers(1, 4))):
        found = draw(part(SHAPE[min(axis, 2)]))
        takes = found is not None and found is not Ellipsis
        if (takes and axis == 3) or (found is Ellipsis and Ellipsis in map(_plain, parts)):
            continue
        if takes and Ellipsis in map(_plain, parts):
            continue
        parts.append(found)
        axis += takes
    return tuple(parts)


def _plain(value):
    return value if value is Ellipsis else None


def fresh(key):
    return tuple(torch.tensor(k) if isinstance(k, list) else k for k in key)


@given(keys())
@settings(max_examples=300, deadline=None)
def test_reading_is_torchs(key):
    """S56: `x[key]` is PyTorch's for ints, slices, None, the ellipsis and lists, mixed."""
    x = data()
    ours, theirs = from_numpy(x)[key], torch.from_numpy(x)[fresh(key)]
    assert ours.shape == tuple(theirs.shape)
    assert np.array_equal(ours.numpy(), theirs.numpy())


@given(keys(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_writing_is_torchs(key, whole):
    """S135: `x[key] = value` writes what PyTorch writes, and counts one write or more."""
    ours, theirs = from_numpy(data()), torch.from_numpy(data())
    chosen = theirs[fresh(key)]
    value = np.full(tuple(chosen.shape), -1.0) if whole else -1.0
    before = ours._version
    ours[key] = tensor(value, dtype="float64") if whole else value
    theirs[fresh(key)] = torch.from_numpy(value) if whole else value
    assert np.array_equal(ours.numpy(), theirs.numpy())
    assert ours._version > before


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_masks(axes):
    """S156: a mask of leading axes chooses elements, for reading and for writing."""
    x = data()
    mask = x[(..., *[0] * (3 - axes))] % 2 == 0
    for given_mask in (mask, from_numpy(mask)):
        assert np.array_equal(from_numpy(x)[given_mask].numpy(), x[mask])
    y = data()
    from_numpy(y)[from_numpy(mask)] = 7.0
    x[mask] = 7
    assert np.array_equal(x, y)


SINGLE_BOOLS = [
    (True,), (False,), (True, slice(0, 2)), (slice(None), True), ([0, 1], True), (True, [0, 1]),
    (None, False, 1), (..., True), (True, True), (0, True, 1), (True, ..., [0, 1]),
]  # fmt: skip


@pytest.mark.parametrize("key", SINGLE_BOOLS)
def test_single_bools(key):
    """S135: a single bool is an axis of size one that is kept or dropped, as in NumPy."""
    x, y = data(), data()
    bare = tuple(polyop.asarray(np.asarray(k)) if isinstance(k, bool) else k for k in key)
    for given_key in (key, bare):
        assert np.array_equal(from_numpy(x)[given_key].numpy(), x[key])
    from_numpy(y)[key] = -1.0
    x[key] = -1
    assert np.array_equal(x, y)


def test_tensors_in_slices():
    """An integer tensor without axes may be the bound of a slice, as any index may."""
    x = data()
    stop = polyop.asarray(2)
    assert np.array_equal(from_numpy(x)[:, :stop].numpy(), x[:, :2])
    assert np.array_equal(from_numpy(x)[:stop].numpy(), x[:2])


def test_writes_through_views_are_seen():
    """S135: a write through a view changes the base, and the version of all aliases."""
    x = tensor([[1.0, 2.0], [3.0, 4.0]])
    row, turned = x[0], x.T
    row += 1
    turned[1, 1] = 0
    assert x.tolist() == [[2.0, 3.0], [3.0, 0.0]]
    assert x._version == row._version == turned._version == 2


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (3, "index 3 is out of range for axis 0 with size 3"),
        ((0, 0, 0, 0), "too many indices"),
        ((..., ...), "too many indices"),
        ("a", "cannot be indexed with str"),
        ([9], "out of bounds"),
        (np.array([1.5]), "a tensor of float64 is no index"),
        (np.array([True]), "a mask of shape"),
    ],
)
def test_bad_keys(key, words):
    """S63: a key that does not fit raises an error that says why."""
    with pytest.raises(ArgumentError, match=words):
        from_numpy(data())[key]


def test_broadcast_tensors_are_not_written():
    """S135: elements that are one in memory are not written as if they were several."""
    wide = broadcast_to(tensor([1.0]), [3, 2])
    for key in (0, [0, 1], np.array([True, False, True]), (slice(None), tensor([0, 1]))):
        with pytest.raises(MutationError, match="only repeats"):
            wide[key] = 2.0
    for add in (False, True):
        with pytest.raises(MutationError, match="index_put_ cannot write"):
            polyop.ops.core.index_put_(wide, [tensor([0])], tensor(2.0), add)


@pytest.mark.parametrize(
    "key", ["mask", "mask[:, 0]", "[]", "[[]]", "([], [])", "mask[:0, 0]", "np.zeros(0, 'int8')"]
)
def test_keys_without_elements_are_of_their_kind(key):
    """S206: an array without elements is a mask or integers as its dtype says; a list, integers."""
    found, wanted = (
        eval(f"x[{key}]", {"x": x, "np": np, "mask": np.zeros((0, 3), bool)}).shape  # noqa: S307 - the key is the case
        for x in (polyop.zeros((0, 3)), np.zeros((0, 3)))
    )
    assert found == wanted


def test_no_elements_of_a_kind_that_is_no_index():
    """S206: an array of no numbers is no more an index than one of some."""
    with pytest.raises(ArgumentError, match="a tensor of float64 is no index"):
        polyop.zeros((0, 3))[np.zeros(0)]


@pytest.mark.parametrize("key", ["[...]", "[:2]", "[[0, 1]]", "[x > 1]", "[0]"])
def test_axes_of_one_element_in_front_of_what_is_written(key):
    """They are left out, on any payload, and gradients have them again, as PyTorch's."""

    def written(wrap):
        x, v = wrap(np.array([1.0, 2.0, 3.0])), wrap(np.full((1, 1, 1), 5.0))
        v.requires_grad_()
        y = x * 1
        exec(f"y{key} = v", {"y": y, "x": x, "v": v})  # noqa: S102 - the key is the case
        (y * y).sum().backward()
        return y.tolist(), v.grad.tolist()

    ours = written(from_numpy)
    assert ours == written(torch.from_numpy)
    assert ours == written(lambda a: polyop.from_array(torch.from_numpy(a)))


def test_a_copy_has_no_more_axes():
    """`copy_` itself refuses them, as PyTorch does; fakes too."""
    with pytest.raises(ArgumentError, match="copy_"):
        polyop.ones(3).copy_(polyop.ones(1, 3))
    with polyop.fake.FakeTensorMode() as mode, pytest.raises(ArgumentError, match="more axes"):
        mode.from_tensor(polyop.ones(3)).copy_(polyop.ones(1, 3))
