"""Networks as other people write them, from the descriptions in their papers and the interfaces of their packages: what
bench_dropin.py accelerates. Small where the original is deep: a block more is the same work once more."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm
from torch.nn.utils.parametrizations import weight_norm

instance = functools.partial(nn.InstanceNorm2d, affine=False)


class ResnetBlock(nn.Module):
    """Of CycleGAN's generator (Zhu et al. 2017, appendix)."""

    def __init__(self, dim, norm, dropout, bias):
        super().__init__()
        first = [nn.ReflectionPad2d(1), nn.Conv2d(dim, dim, 3, bias=bias), norm(dim), nn.ReLU(True)]
        second = [nn.ReflectionPad2d(1), nn.Conv2d(dim, dim, 3, bias=bias), norm(dim)]
        self.conv_block = nn.Sequential(*first, *[nn.Dropout(0.5)] * dropout, *second)

    def forward(self, x):
        return x + self.conv_block(x)


class ResnetGenerator(nn.Module):
    def __init__(self, blocks, norm=instance, dropout=False, width=64):
        super().__init__()
        bias = norm is instance
        model = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7, bias=bias), norm(width), nn.ReLU(True)]
        for c in (width, 2 * width):
            model += [nn.Conv2d(c, 2 * c, 3, 2, 1, bias=bias), norm(2 * c), nn.ReLU(True)]
        model += [ResnetBlock(4 * width, norm, dropout, bias) for _ in range(blocks)]
        for c in (4 * width, 2 * width):
            model += [nn.ConvTranspose2d(c, c // 2, 3, 2, 1, 1, bias=bias), norm(c // 2), nn.ReLU(True)]
        self.model = nn.Sequential(*model, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())

    def forward(self, input):
        return self.model(input)


class UnetBlock(nn.Module):
    """Of pix2pix's generator (Isola et al. 2017): down, what is inside, up, beside what came in."""

    def __init__(self, outer, inner, inside=None, outermost=False):
        super().__init__()
        self.outermost = outermost
        down = nn.Conv2d(3 if outermost else outer, inner, 4, 2, 1, bias=False)
        inputs = inner if inside is None else 2 * inner
        if outermost:
            up = [nn.ReLU(True), nn.ConvTranspose2d(inputs, outer, 4, 2, 1), nn.Tanh()]
            model = [down, inside, *up]
        else:
            up = [nn.ReLU(True), nn.ConvTranspose2d(inputs, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer)]
            norm = [] if inside is None else [nn.BatchNorm2d(inner)]
            model = [nn.LeakyReLU(0.2, True), down, *norm, *([] if inside is None else [inside]), *up]
        self.model = nn.Sequential(*model)

    def forward(self, x):
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


def unet_generator(downs, width=64):
    block = UnetBlock(8 * width, 8 * width)
    for _ in range(downs - 5):
        block = UnetBlock(8 * width, 8 * width, block)
    for c in (4 * width, 2 * width, width):
        block = UnetBlock(c, 2 * c, block)
    return UnetBlock(3, width, block, outermost=True)


class NLayerDiscriminator(nn.Module):
    """The 70x70 PatchGAN."""

    def __init__(self, norm=instance, width=64):
        super().__init__()
        layers = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for c, stride in ((width, 2), (2 * width, 2), (4 * width, 1)):
            layers += [nn.Conv2d(c, 2 * c, 4, stride, 1, bias=norm is instance), norm(2 * c), nn.LeakyReLU(0.2, True)]
        self.model = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))

    def forward(self, input):
        return self.model(input)


class PixelDiscriminator(nn.Module):
    def __init__(self, norm=instance, width=64):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 1), nn.LeakyReLU(0.2, True), nn.Conv2d(width, 2 * width, 1), norm(2 * width),
            nn.LeakyReLU(0.2, True), nn.Conv2d(2 * width, 1, 1),
        )  # fmt: skip

    def forward(self, input):
        return self.net(input)


class ResidualDenseBlock(nn.Module):
    """Of ESRGAN's generator (Wang et al. 2018)."""

    def __init__(self, num_feat=64, num_grow_ch=32):
        super().__init__()
        for i in range(5):
            outputs = num_grow_ch if i < 4 else num_feat
            setattr(self, f"conv{i + 1}", nn.Conv2d(num_feat + i * num_grow_ch, outputs, 3, 1, 1))
        self.lrelu = nn.LeakyReLU(negative_slope=0.2, inplace=True)

    def forward(self, x):
        x1 = self.lrelu(self.conv1(x))
        x2 = self.lrelu(self.conv2(torch.cat((x, x1), 1)))
        x3 = self.lrelu(self.conv3(torch.cat((x, x1, x2), 1)))
        x4 = self.lrelu(self.conv4(torch.cat((x, x1, x2, x3), 1)))
        x5 = self.conv5(torch.cat((x, x1, x2, x3, x4), 1))
        return x5 * 0.2 + x


class RRDB(nn.Module):
    def __init__(self, num_feat):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (ResidualDenseBlock(num_feat) for _ in range(3))

    def forward(self, x):
        return self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x


class RRDBNet(nn.Module):
    def __init__(self, scale=4, num_feat=64, num_block=2):
        super().__init__()
        self.scale = scale
        self.conv_first = nn.Conv2d(3 * (4 // scale) ** 2, num_feat, 3, 1, 1)
        self.body = nn.Sequential(*(RRDB(num_feat) for _ in range(num_block)))
        self.conv_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_up1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_up2 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_last = nn.Conv2d(num_feat, 3, 3, 1, 1)
        self.lrelu = nn.LeakyReLU(negative_slope=0.2, inplace=True)

    def forward(self, x):
        feat = F.pixel_unshuffle(x, 2) if self.scale == 2 else x
        feat = self.conv_first(feat)
        body_feat = self.conv_body(self.body(feat))
        feat = feat + body_feat
        feat = self.lrelu(self.conv_up1(F.interpolate(feat, scale_factor=2, mode="nearest")))
        feat = self.lrelu(self.conv_up2(F.interpolate(feat, scale_factor=2, mode="nearest")))
        return self.conv_last(self.lrelu(self.conv_hr(feat)))


class SRVGGNetCompact(nn.Module):
    """Real-ESRGAN's small upscaler: convolutions and PReLU, then pixel shuffle."""

    def __init__(self, num_feat=64, num_conv=8, upscale=4):
        super().__init__()
        self.upscale = upscale
        self.body = nn.ModuleList([nn.Conv2d(3, num_feat, 3, 1, 1), nn.PReLU(num_feat)])
        for _ in range(num_conv):
            self.body += [nn.Conv2d(num_feat, num_feat, 3, 1, 1), nn.PReLU(num_feat)]
        self.body.append(nn.Conv2d(num_feat, 3 * upscale**2, 3, 1, 1))
        self.upsampler = nn.PixelShuffle(upscale)

    def forward(self, x):
        out = x
        for i in range(len(self.body)):
            out = self.body[i](out)
        return self.upsampler(out) + F.interpolate(x, scale_factor=self.upscale, mode="nearest")


class HifiBlock(nn.Module):
    """Of HiFi-GAN's multi-receptive field fusion (Kong et al. 2020)."""

    def __init__(self, channels, kernel, dilations=(1, 3, 5)):
        super().__init__()

        def conv(d):
            return weight_norm(nn.Conv1d(channels, channels, kernel, 1, dilation=d, padding=d * (kernel - 1) // 2))

        self.convs1 = nn.ModuleList([conv(d) for d in dilations])
        self.convs2 = nn.ModuleList([conv(1) for _ in dilations])

    def forward(self, x):
        for c1, c2 in zip(self.convs1, self.convs2, strict=True):
            xt = F.leaky_relu(x, 0.1)
            xt = c1(xt)
            xt = F.leaky_relu(xt, 0.1)
            xt = c2(xt)
            x = xt + x
        return x


class HifiGenerator(nn.Module):
    """The published V2: 128 channels."""

    def __init__(self, width=128):
        super().__init__()
        self.num_kernels = 3
        self.conv_pre = weight_norm(nn.Conv1d(80, width, 7, 1, padding=3))
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for i, (rate, kernel) in enumerate(((8, 16), (8, 16), (2, 4), (2, 4))):
            c = width // 2 ** (i + 1)
            up = nn.ConvTranspose1d(2 * c, c, kernel, rate, padding=(kernel - rate) // 2)
            self.ups.append(weight_norm(up))
            self.resblocks.extend(HifiBlock(c, k) for k in (3, 7, 11))
        self.conv_post = weight_norm(nn.Conv1d(c, 1, 7, 1, padding=3))

    def forward(self, x):
        x = self.conv_pre(x)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            xs = 0
            for j in range(self.num_kernels):
                xs = xs + self.resblocks[i * self.num_kernels + j](x)
            x = xs / self.num_kernels
        x = F.leaky_relu(x)
        return torch.tanh(self.conv_post(x))


class ModulatedConv2d(nn.Module):
    """StyleGAN2's (Karras et al. 2020, equations 1 to 3), in torch alone, as restorers of faces have it."""

    def __init__(self, inputs, outputs, kernel, style, demodulate=True, sample_mode=None):
        super().__init__()
        self.demodulate, self.sample_mode, self.padding = demodulate, sample_mode, kernel // 2
        self.modulation = nn.Linear(style, inputs)
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel) / math.sqrt(inputs * kernel**2))

    def forward(self, x, style):
        b, c, h, w = x.shape
        weight = self.weight * self.modulation(style).view(b, 1, c, 1, 1)
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8).view(b, -1, 1, 1, 1)
        weight = weight.view(-1, c, *self.weight.shape[3:])
        if self.sample_mode == "upsample":
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        h, w = x.shape[2:]
        out = F.conv2d(x.view(1, b * c, h, w), weight, padding=self.padding, groups=b)
        return out.view(b, -1, *out.shape[2:])


class StyleConv(nn.Module):
    def __init__(self, inputs, outputs, kernel, style, sample_mode=None):
        super().__init__()
        self.modulated_conv = ModulatedConv2d(inputs, outputs, kernel, style, True, sample_mode)
        self.weight = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(1, outputs, 1, 1))
        self.activate = nn.LeakyReLU(negative_slope=0.2, inplace=True)

    def forward(self, x, style):
        out = self.modulated_conv(x, style) * 2**0.5
        noise = out.new_empty(out.shape[0], 1, *out.shape[2:]).normal_()
        out = out + self.weight * noise
        return self.activate(out + self.bias)


class ToRGB(nn.Module):
    def __init__(self, inputs, style):
        super().__init__()
        self.modulated_conv = ModulatedConv2d(inputs, 3, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x, style, skip=None):
        out = self.modulated_conv(x, style) + self.bias
        if skip is not None:
            out = out + F.interpolate(skip, scale_factor=2, mode="bilinear", align_corners=False)
        return out


class StyleDecoder(nn.Module):
    def __init__(self, size, width, style=512, levels=None):
        super().__init__()
        self.constant = nn.Parameter(torch.randn(1, width(4), 4, 4))
        self.style_conv1, self.to_rgb1 = StyleConv(width(4), width(4), 3, style), ToRGB(width(4), style)
        self.style_convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        c = width(4)
        for i in range(3, int(math.log2(size)) + 1):
            out = width(2**i)
            self.style_convs += [StyleConv(c, out, 3, style, "upsample"), StyleConv(out, out, 3, style)]
            self.to_rgbs.append(ToRGB(out, style))
            c = out

    def forward(self, style, conditions=None):
        out = self.style_conv1(self.constant.repeat(len(style), 1, 1, 1), style)
        skip = self.to_rgb1(out, style)
        for i, to_rgb in enumerate(self.to_rgbs):
            out = self.style_convs[2 * i](out, style)
            if conditions is not None:
                half = out.shape[1] // 2
                same, changed = torch.split(out, half, dim=1)
                out = torch.cat([same, changed * conditions[2 * i] + conditions[2 * i + 1]], dim=1)
            out = self.style_convs[2 * i + 1](out, style)
            skip = to_rgb(out, style, skip)
        return skip


class MappedDecoder(nn.Module):
    """A decoder from a latent, through four layers that map it."""

    def __init__(self, size, width):
        super().__init__()
        layers = [layer for _ in range(4) for layer in (nn.Linear(512, 512), nn.LeakyReLU(0.2, True))]
        self.style_mlp, self.decoder = nn.Sequential(*layers), StyleDecoder(size, width)

    def forward(self, z):
        return self.decoder(self.style_mlp(z))


class ResBlock(nn.Module):
    """Of the U-Net of a restorer of faces (Wang et al. 2021)."""

    def __init__(self, inputs, outputs, mode):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, 1, 1)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.scale_factor = 0.5 if mode == "down" else 2

    def forward(self, x):
        out = F.leaky_relu_(self.conv1(x), negative_slope=0.2)
        out = F.interpolate(out, scale_factor=self.scale_factor, mode="bilinear", align_corners=False)
        out = F.leaky_relu_(self.conv2(out), negative_slope=0.2)
        x = F.interpolate(x, scale_factor=self.scale_factor, mode="bilinear", align_corners=False)
        return out + self.skip(x)


class FaceRestorer(nn.Module):
    """A U-Net whose features steer a StyleGAN2 decoder."""

    def __init__(self, size, width):
        super().__init__()
        sizes = [2**i for i in range(int(math.log2(size)), 2, -1)]
        self.conv_body_first = nn.Conv2d(3, width(size), 1)
        self.conv_body_down = nn.ModuleList(ResBlock(width(s), width(s // 2), "down") for s in sizes)
        self.final_conv = nn.Conv2d(width(4), width(4), 3, 1, 1)
        self.conv_body_up = nn.ModuleList(ResBlock(width(s // 2), width(s), "up") for s in reversed(sizes))
        self.final_linear = nn.Linear(width(4) * 16, 512)

        def condition(s):
            c = width(s)
            return nn.Sequential(nn.Conv2d(c, c, 3, 1, 1), nn.LeakyReLU(0.2, True), nn.Conv2d(c, c // 2, 3, 1, 1))

        self.condition_scale = nn.ModuleList(condition(s) for s in reversed(sizes))
        self.condition_shift = nn.ModuleList(condition(s) for s in reversed(sizes))
        self.stylegan_decoder = StyleDecoder(size, width)

    def forward(self, x):
        feat = F.leaky_relu_(self.conv_body_first(x), negative_slope=0.2)
        skips = []
        for down in self.conv_body_down:
            feat = down(feat)
            skips.insert(0, feat)
        feat = F.leaky_relu_(self.final_conv(feat), negative_slope=0.2)
        style = self.final_linear(feat.view(feat.size(0), -1))
        conditions = []
        for i in range(len(self.conv_body_up)):
            feat = self.conv_body_up[i](feat + skips[i])
            conditions.append(self.condition_scale[i](feat).clone())
            conditions.append(self.condition_shift[i](feat).clone())
        return self.stylegan_decoder(style, conditions)


class EqualConv2d(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1, padding=0, bias=True):
        super().__init__()
        self.stride, self.padding, self.scale = stride, padding, 1 / math.sqrt(inputs * kernel**2)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x):
        return F.conv2d(x, self.weight * self.scale, bias=self.bias, stride=self.stride, padding=self.padding)


class EqualLinear(nn.Module):
    def __init__(self, inputs, outputs, activate=False):
        super().__init__()
        self.activate, self.scale = activate, 1 / math.sqrt(inputs)
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        out = F.linear(x, self.weight * self.scale, bias=self.bias)
        return F.leaky_relu(out, 0.2) * 2**0.5 if self.activate else out


class Blur(nn.Module):
    def __init__(self, padding):
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", (taps[:, None] * taps) / 64)
        self.padding = padding

    def forward(self, x):
        kernel = self.kernel.expand(x.shape[1], 1, 4, 4)
        return F.conv2d(F.pad(x, [*self.padding] * 2), kernel, groups=x.shape[1])


class ScaledLeakyReLU(nn.Module):
    def forward(self, x):
        return F.leaky_relu(x, 0.2) * 2**0.5


def conv_layer(inputs, outputs, kernel, down=False, act=True):
    conv = EqualConv2d(inputs, outputs, kernel, 2 if down else 1, 0 if down else kernel // 2, bias=act)
    blur = [Blur((2, 2) if kernel == 3 else (1, 1))] if down else []
    return nn.Sequential(*blur, conv, *[ScaledLeakyReLU()] * act)


class StyleBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1, self.conv2 = conv_layer(inputs, inputs, 3), conv_layer(inputs, outputs, 3, down=True)
        self.skip = conv_layer(inputs, outputs, 1, down=True, act=False)

    def forward(self, x):
        out = self.conv2(self.conv1(x))
        return (out + self.skip(x)) / math.sqrt(2)


class StyleDiscriminator(nn.Module):
    """StyleGAN2's residual discriminator with equalised layers, in torch alone."""

    def __init__(self, size, width):
        super().__init__()
        blocks = [conv_layer(3, width(size), 1)]
        for i in range(int(math.log2(size)), 2, -1):
            blocks.append(StyleBlock(width(2**i), width(2 ** (i - 1))))
        self.conv_body = nn.Sequential(*blocks)
        self.final_conv = conv_layer(width(4) + 1, width(4), 3)
        self.final_linear = nn.Sequential(EqualLinear(width(4) * 16, width(4), True), EqualLinear(width(4), 1))

    def forward(self, x):
        out = self.conv_body(x)
        group = min(len(out), 4)
        stddev = torch.sqrt(out.view(group, -1, 1, *out.shape[1:]).var(0, unbiased=False) + 1e-8)
        stddev = stddev.mean([1, 2, 3, 4] if stddev.dim() == 5 else None, keepdim=True).view(-1, 1, 1, 1)
        out = torch.cat([out, stddev.expand(len(out), 1, *out.shape[2:])], 1)
        return self.final_linear(self.final_conv(out).view(len(out), -1))


class GLU(nn.Module):
    def forward(self, x):
        half = x.size(1) // 2
        return x[:, :half] * torch.sigmoid(x[:, half:])


def sn_conv(*args, **kwargs):
    return spectral_norm(nn.Conv2d(*args, **kwargs))


class SLEBlock(nn.Module):
    """Skip-layer excitation (Liu et al. 2021)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.main = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), sn_conv(inputs, outputs, 4, 1, 0, bias=False), nn.SiLU(),
            sn_conv(outputs, outputs, 1, 1, 0, bias=False), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, small, big):
        return big * self.main(small)


class FewShotGenerator(nn.Module):
    """The light-weight generator of Liu et al. 2021."""

    def __init__(self, size, width):
        super().__init__()
        first = spectral_norm(nn.ConvTranspose2d(256, width(4) * 2, 4, 1, 0, bias=False))
        self.init = nn.Sequential(first, nn.BatchNorm2d(width(4) * 2), GLU())
        self.ups, self.sizes = nn.ModuleList(), [2**i for i in range(3, int(math.log2(size)) + 1)]
        for s in self.sizes:
            inputs, outputs = width(s // 2), width(s)
            self.ups.append(nn.Sequential(
                nn.Upsample(scale_factor=2, mode="nearest"), sn_conv(inputs, 2 * outputs, 3, 1, 1, bias=False),
                nn.BatchNorm2d(2 * outputs), GLU(),
            ))  # fmt: skip
        self.excite = SLEBlock(width(self.sizes[0]), width(self.sizes[-1]))
        self.to_big = sn_conv(width(size), 3, 3, 1, 1, bias=False)

    def forward(self, z):
        x = self.init(z.view(len(z), -1, 1, 1))
        features = []
        for up in self.ups:
            x = up(x)
            features.append(x)
        return torch.tanh(self.to_big(self.excite(features[0], x)))


class DownBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.main = nn.Sequential(
            sn_conv(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True),
            sn_conv(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.direct = nn.Sequential(
            nn.AvgPool2d(2, 2),
            sn_conv(inputs, outputs, 1, 1, 0, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.2),
        )

    def forward(self, feat):
        return (self.main(feat) + self.direct(feat)) / 2


class FewShotDiscriminator(nn.Module):
    def __init__(self, size, width):
        super().__init__()
        self.first = nn.Sequential(sn_conv(3, width(size), 3, 1, 1, bias=False), nn.LeakyReLU(0.2, inplace=True))
        sizes = [2**i for i in range(int(math.log2(size)), 3, -1)]
        self.downs = nn.Sequential(*(DownBlock(width(s), width(s // 2)) for s in sizes))
        self.last = nn.Sequential(
            sn_conv(width(8), width(8), 1, 1, 0, bias=False), nn.BatchNorm2d(width(8)), nn.LeakyReLU(0.2),
            sn_conv(width(8), 1, 4, 1, 0, bias=False),
        )  # fmt: skip

    def forward(self, x):
        return self.last(self.downs(self.first(x))).view(-1)


class UNetDiscriminatorSN(nn.Module):
    """Real-ESRGAN's discriminator (Wang et al. 2021b)."""

    def __init__(self, width=64):
        super().__init__()
        self.conv0 = nn.Conv2d(3, width, 3, 1, 1)
        for i in (1, 2, 3):
            setattr(self, f"conv{i}", sn_conv(width * 2 ** (i - 1), width * 2**i, 4, 2, 1, bias=False))
        for i in (4, 5, 6):
            c = width * 2 ** (7 - i)
            setattr(self, f"conv{i}", sn_conv(c, c // 2, 3, 1, 1, bias=False))
        self.conv7 = sn_conv(width, width, 3, 1, 1, bias=False)
        self.conv8 = sn_conv(width, width, 3, 1, 1, bias=False)
        self.conv9 = nn.Conv2d(width, 1, 3, 1, 1)

    def forward(self, x):
        x0 = F.leaky_relu(self.conv0(x), negative_slope=0.2, inplace=True)
        x1 = F.leaky_relu(self.conv1(x0), negative_slope=0.2, inplace=True)
        x2 = F.leaky_relu(self.conv2(x1), negative_slope=0.2, inplace=True)
        x3 = F.leaky_relu(self.conv3(x2), negative_slope=0.2, inplace=True)
        x3 = F.interpolate(x3, scale_factor=2, mode="bilinear", align_corners=False)
        x4 = F.leaky_relu(self.conv4(x3), negative_slope=0.2, inplace=True) + x2
        x4 = F.interpolate(x4, scale_factor=2, mode="bilinear", align_corners=False)
        x5 = F.leaky_relu(self.conv5(x4), negative_slope=0.2, inplace=True) + x1
        x5 = F.interpolate(x5, scale_factor=2, mode="bilinear", align_corners=False)
        x6 = F.leaky_relu(self.conv6(x5), negative_slope=0.2, inplace=True) + x0
        out = F.leaky_relu(self.conv7(x6), negative_slope=0.2, inplace=True)
        out = F.leaky_relu(self.conv8(out), negative_slope=0.2, inplace=True)
        return self.conv9(out)


def width(size):
    """Channels of StyleGAN-like networks, narrow: 512 at 4x4 to 32 at 256x256."""
    return min(512, 8192 // size)


# name: (network for images of a side, shape of one input for that side, its usual side)
NETWORKS = {
    "CycleGAN ResNet-9": (lambda s: ResnetGenerator(9), lambda s: (3, s, s), 256),
    "CycleGAN ResNet-6, dropout, batch norm": (
        lambda s: ResnetGenerator(6, nn.BatchNorm2d, dropout=True), lambda s: (3, s, s), 128,
    ),
    "CycleGAN U-Net": (lambda s: unet_generator(int(math.log2(s))), lambda s: (3, s, s), 128),
    "PatchGAN": (lambda s: NLayerDiscriminator(), lambda s: (3, s, s), 256),
    "pixel discriminator": (lambda s: PixelDiscriminator(), lambda s: (3, s, s), 256),
    "RRDBNet x4": (lambda s: RRDBNet(4), lambda s: (3, s, s), 64),
    "RRDBNet x2": (lambda s: RRDBNet(2), lambda s: (3, s, s), 128),
    "SRVGGNetCompact x4": (lambda s: SRVGGNetCompact(), lambda s: (3, s, s), 128),
    "HiFi-GAN V2": (lambda s: HifiGenerator(), lambda s: (80, s // 2), 128),
    "face restorer": (lambda s: FaceRestorer(s, width), lambda s: (3, s, s), 256),
    "its StyleGAN2": (lambda s: MappedDecoder(s, width), lambda s: (512,), 256),
    "StyleGAN2 discriminator": (lambda s: StyleDiscriminator(s, width), lambda s: (3, s, s), 256),
    "few-shot generator": (lambda s: FewShotGenerator(s, width), lambda s: (256,), 256),
    "few-shot discriminator": (lambda s: FewShotDiscriminator(s, width), lambda s: (3, s, s), 256),
    "U-Net discriminator, spectral norm": (lambda s: UNetDiscriminatorSN(), lambda s: (3, s, s), 256),
}  # fmt: skip
