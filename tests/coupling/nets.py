"""Small versions of well-known networks, as users write them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Pooled(nn.Sequential):
    """Layers, then the mean over all positions, then a linear layer."""

    def __init__(self, *layers: nn.Module, width: int, classes: int = 5) -> None:
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


class Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut or nn.Identity()
        self.activation = activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.shortcut(x) + self.body(x))


class BasicBlock(nn.Module):
    """He et al. 2015; with option B where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + identity)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, with the 3x3 in groups for ResNeXt (Xie et al. 2016)."""

    def __init__(self, inputs: int, width: int, outputs: int, groups: int = 1) -> None:
        super().__init__()
        self.reduce = conv_bn(inputs, width, 1)
        self.conv = conv_bn(width, width, 3, groups=groups)
        self.expand = nn.Sequential(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.downsample = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.expand(self.conv(self.reduce(x))) + self.downsample(x))


class InvertedResidual(nn.Module):
    """MobileNetV2 (Sandler et al. 2018)."""

    def __init__(self, width: int, outputs: int, expand: int = 4) -> None:
        super().__init__()
        hidden = width * expand
        self.use_res_connect = width == outputs
        self.conv = nn.Sequential(
            conv_bn(width, hidden, 1),
            conv_bn(hidden, hidden, 3, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class DenseNet(nn.Module):
    """Huang et al. 2016: every layer reads all before it; a transition; a second block."""

    def __init__(self, growth: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one = nn.ModuleList([self._layer(8 + i * growth, growth) for i in range(3)])
        self.transition = nn.Sequential(conv_bn(8 + 3 * growth, 12, 1), nn.AvgPool2d(2))
        self.two = nn.ModuleList([self._layer(12 + i * growth, growth) for i in range(2)])
        self.norm = nn.BatchNorm2d(12 + 2 * growth)
        self.head = nn.Linear(12 + 2 * growth, 5)

    def _layer(self, inputs: int, growth: int) -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, growth, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.one:
            x = torch.cat([x, layer(x)], 1)
        x = self.transition(x)
        for layer in self.two:
            x = torch.cat([x, layer(x)], 1)
        return self.head(F.relu(self.norm(x)).mean((2, 3)))


class UNet(nn.Module):
    """Ronneberger et al. 2015, two levels."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = conv_bn(3, 8), conv_bn(8, 12)
        self.bottom = conv_bn(12, 16)
        self.up2 = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.merge2 = conv_bn(24, 12)
        self.up1 = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.merge1 = conv_bn(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        bottom = self.bottom(F.max_pool2d(two, 2))
        up = self.merge2(torch.cat([self.up2(bottom), two], 1))
        return self.head(self.merge1(torch.cat([self.up1(up), one], 1)))


class LayerNorm2d(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Liu et al. 2022: depthwise convolution, LayerNorm, MLP on the last dimension, layer scale."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        out = self.gamma * self.pwconv2(F.gelu(self.pwconv1(out)))
        return x + out.permute(0, 3, 1, 2)


class SqueezeExcite(nn.Module):
    """Hu et al. 2017, with 1x1 convolutions as in torchvision, or linear layers as in the paper."""

    def __init__(self, channels: int, squeezed: int, linear: bool = False) -> None:
        super().__init__()
        self.linear = linear
        self.fc1 = nn.Linear(channels, squeezed) if linear else nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Linear(squeezed, channels) if linear else nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.linear:
            scale = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
            return x * scale.view(x.shape[0], -1, 1, 1)
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class Inception(nn.Module):
    """Szegedy et al. 2014: four branches side by side."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1 = conv_bn(inputs, 4, 1)
        self.branch3 = nn.Sequential(conv_bn(inputs, 4, 1), conv_bn(4, 6))
        self.branch5 = nn.Sequential(conv_bn(inputs, 2, 1), conv_bn(2, 4, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(inputs, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch3(x), self.branch5(x), self.pool(x)], 1)


class ShuffleUnit(nn.Module):
    """ShuffleNetV2 (Ma et al. 2018): split, one half through convolutions, concatenate, shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv_bn(half, half, 1),
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            conv_bn(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, 1)
        out = torch.cat([one, self.branch(two)], 1)
        b, c, h, w = out.shape
        return out.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


class GroupNormNet(nn.Module):
    """Group norm mixes its channels, instance norm does not; PReLU has a slope a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.conv2, self.norm2 = nn.Conv2d(8, 12, 3, padding=1), nn.InstanceNorm2d(12, affine=True)
        self.conv3, self.norm3 = nn.Conv2d(12, 10, 3, padding=1), nn.GroupNorm(10, 10)
        self.slope = nn.PReLU(10)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return self.head(self.slope(self.norm3(self.conv3(x))).mean((2, 3)))


class Recurrent(nn.Module):
    """Tokens in, the next token out, from an LSTM or a GRU."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], layers: int = 1, bidirectional: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.rnn = kind(8, 12, layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(12 * (1 + bidirectional), 11)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(tokens))[0])


class Encoder(nn.Module):
    """`nn.TransformerEncoder` over tokens."""

    def __init__(self, norm_first: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(tokens)).mean(1))


class CausalSelfAttention(nn.Module):
    """As in nanoGPT: one projection for query, key and value; `own` takes its width from itself, not from x."""

    def __init__(self, width: int, n_head: int, own: bool) -> None:
        super().__init__()
        self.n_head, self.n_embd, self.own = n_head, width, own
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = (*x.shape[:2], self.n_embd) if self.own else x.shape
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        q, k, v = (z.view(b, t, self.n_head, c // self.n_head).transpose(1, 2) for z in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(b, t, c))


class MLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class GatedMLP(nn.Module):
    """One half of the hidden units gates the other (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.fc1(x).chunk(2, -1)
        return self.fc2(value * F.silu(gate))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, attention: nn.Module, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), attention
        self.norm2, self.mlp = nn.LayerNorm(width), MLP(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """Two blocks; the output layer is the embedding where tied."""

    def __init__(self, tied: bool = False, own: bool = True) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(11, 16), nn.Embedding(12, 16)
        self.blocks = nn.Sequential(*(Block(16, CausalSelfAttention(16, 4, own), 32) for _ in range(2)))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 11, bias=False)
        if tied:
            self.head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.blocks(self.wte(tokens) + self.wpe(positions))))


class TimmAttention(nn.Module):
    """As in timm: `qkv` in one, reshaped to (3, batch, heads, tokens, head_dim)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        weights = (q @ k.transpose(-2, -1) / self.head_dim**0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, -1))


class SeparateAttention(nn.Module):
    """Three projections, and a width of heads that need not be the model's."""

    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads, self.inner_dim = heads, heads * dim_head
        self.to_q = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_k = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_v = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * dim_head, dim), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.to_q, self.to_k, self.to_v)
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ViT(nn.Module):
    """Dosovitskiy et al. 2020: patches, a class token, position embeddings."""

    def __init__(self, separate: bool = False) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 16, 4, stride=4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 16))
        self.pos_embed = nn.Parameter(torch.randn(1, 5, 16))
        attention = [SeparateAttention(16, 4, 6) if separate else TimmAttention(16, 4) for _ in range(2)]
        self.blocks = nn.Sequential(*(Block(16, each, 24) for each in attention))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class MixerBlock(nn.Module):
    """Tolstikhin et al. 2021: one MLP over tokens, one over channels."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.token_mlp = nn.LayerNorm(width), MLP(tokens, 12)
        self.norm2, self.channel_mlp = nn.LayerNorm(width), MLP(width, 24)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.token_mlp(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel_mlp(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.blocks = nn.Sequential(*(MixerBlock(4, 16) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(images).flatten(2).transpose(1, 2))).mean(1))


class TiedMLP(nn.Module):
    """An autoencoder whose decoder is the encoder turned round, and a layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(9, 16)
        self.twice = nn.Linear(16, 16)
        self.again = nn.Linear(16, 16)
        self.again.weight = self.twice.weight
        self.last = nn.Linear(16, 9)
        self.out = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.again(F.relu(self.twice(F.relu(self.first(x))))))
        return self.out(F.relu(self.last(x)))


class Unreached(nn.Module):
    """A second head that the example does not ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(9, 16)
        self.head, self.other = nn.Linear(16, 4), nn.Linear(16, 3)

    def forward(self, x: Tensor, other: bool = False) -> Tensor:
        x = F.relu(self.hidden(x))
        return self.other(x) if other else self.head(x)


class Skips(nn.Module):
    """A network that reads its input again in front of its features, as fields of coordinates do; and a gated layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gated, self.head = nn.Linear(9, 16), nn.Linear(25, 24), nn.Linear(21, 3)

    def forward(self, x: Tensor) -> Tensor:
        gated = F.glu(self.gated(torch.cat((x, F.relu(self.first(x))), -1)), -1)
        return self.head(torch.concat([x, gated], dim=1))


class AttentionPool(nn.Module):
    """States in both directions, summed by weights that one channel spreads over all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.score, self.head = nn.Embedding(11, 6), nn.Linear(20, 1), nn.Linear(20, 3)
        self.rnn = nn.LSTM(6, 10, 2, batch_first=True, bidirectional=True)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.rnn(self.embed(tokens))
        return self.head((states * self.score(states.tanh()).softmax(1)).sum(1))
