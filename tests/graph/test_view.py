import pytest

from gllm_kernels.errors import ShapeError
from gllm_kernels.graph.view import View, shape_of
from gllm_kernels.trace.affine import Affine


def test_split_permute_and_merge_keep_the_elements():
    x = View.contiguous("x", ("t", 256))
    heads = x.split(1, 4, 64).permute(1, 0, 2)
    assert heads.shape == shape_of((4, "t", 64))
    assert heads.strides == shape_of((64, 256, 1))
    assert x.split(1, 4, 64).merge(1) == x


def test_slice_moves_the_offset_by_a_dynamic_dimension():
    cache = View.contiguous("kv", (512, 128)).slice(0, "pos", "tokens")
    assert cache.offset == Affine.sym("pos", 128)
    assert cache.shape[0] == Affine.sym("tokens")


def test_broadcast_repeats_with_stride_zero():
    row = View.contiguous("bias", (8,)).broadcast_to(("m", 8))
    assert row.strides == (Affine(), Affine.const(1))


@pytest.mark.parametrize("action, message", [
    (lambda v: v.split(0, 3, 5), "cannot split axis 0 of size 16 into 3 x 5"),
    (lambda v: v.broadcast_to((16,)), "fewer axes"),
    (lambda v: v.broadcast_to((7, 4)), "size 16 is not 7"),
    (lambda v: v.permute(0, 0), "not an order"),
    (lambda v: v.permute(1, 0).merge(0), "not contiguous"),
])
def test_impossible_views_say_why(action, message):
    with pytest.raises(ShapeError, match=message):
        action(View.contiguous("x", (16, 4)))


def test_repr_rebuilds():
    view = View.contiguous("x", ("t", 4)).slice(0, 1, 2)
    assert eval(repr(view)) == view
