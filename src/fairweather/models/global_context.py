"""A global context for AST, which no published model has: what the whole image looks like."""

import torch.nn.functional as F
from torch import Tensor, nn

OPEN_GATE = 4.0  # 98 % open


class GlobalContext(nn.Module):
    """Tell the network what the whole image looks like, which a window cannot see: any haze at all?

    The mean over the image of what two layers make of each place is added to every place (a global
    context block, Cao et al., 2019, with equal weights), and gives a gate for the residual.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.gather = nn.Linear(channels, channels)
        self.spread = nn.Linear(channels, channels)
        self.gate = nn.Linear(channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, H, W, C), context (B, 1, 1, C) → features, and the gate (B, 1, 1, 1)."""
        context = F.gelu(context)
        return x + self.spread(context), self.gate(context).sigmoid()

    def places(self, x: Tensor) -> Tensor:
        """Return what each place says, (B, H, W, C) → the same; the mean is the context."""
        return F.gelu(self.gather(self.norm(x)))

    def start_open(self) -> None:
        """Add nothing and let nearly all of the residual through, until it is trained."""
        for layer in (self.spread, self.gate):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.spread.bias)
        nn.init.constant_(self.gate.bias, OPEN_GATE)
