"""Cross entropy behind a frozen head: gradients written out equal autograd's."""

import pytest
import torch
import torch.nn.functional as F

from lavis.models.late_fusion.losses import chunked_loss, linear_cross_entropy


def test_chunks_hand_out_the_gradient_of_the_sum():
    rows = torch.randn(7, 3, requires_grad=True)
    total = chunked_loss(rows, lambda part, _: part.square().sum(dim=-1), 2)
    (2 * total).backward()
    torch.testing.assert_close(total, rows.detach().square().sum())
    torch.testing.assert_close(rows.grad, 4 * rows.detach())


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_written_out_gradient_is_autograds(biased, dtype):
    weight, rows = torch.randn(11, 5).to(dtype), (3 * torch.randn(7, 5)).requires_grad_()
    bias = torch.randn(11).to(dtype) if biased else None
    targets = torch.arange(7)
    logits = F.linear(rows.to(dtype), weight, bias).float()
    expected = F.cross_entropy(logits, targets, reduction="sum")
    (slope,) = torch.autograd.grad(expected, rows)
    found = linear_cross_entropy(rows, (weight, bias), targets, 3)
    (2 * found).backward()
    close = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.2, "rtol": 0.05}
    torch.testing.assert_close(found, expected, **close)
    torch.testing.assert_close(rows.grad, 2 * slope, **close)
    with torch.no_grad():
        assert linear_cross_entropy(rows, (weight, bias), targets, 3) == found


def test_autocast_decides_the_type_of_the_products():
    weight, rows, targets = torch.randn(300, 64), torch.randn(9, 64), torch.arange(9)
    half = linear_cross_entropy(rows.bfloat16(), (weight.bfloat16(), None), targets, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear_cross_entropy(rows, (weight, None), targets, 4)
    assert found == half != linear_cross_entropy(rows, (weight, None), targets, 4)
