"""Growth up to a capacity (Verhulst 1838)."""

from torch import Tensor, nn

from odenet_cli.fields import parameters


class Logistic(nn.Module):
    """size' = rate size (1 - size / capacity)"""

    states = ("size",)
    positive = "rate", "capacity", "size"

    def __init__(self) -> None:
        super().__init__()
        self.rate, self.capacity = parameters(1.0, 1.0)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.rate * y * (1 - y / self.capacity)


FIELD = Logistic
