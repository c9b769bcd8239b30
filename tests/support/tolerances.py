"""Every tolerance used by the tests, each with its measured reason."""

from __future__ import annotations

import torch

# --- media ---
# x264 on 64x48 to 256x192 test pictures: mean absolute error 2.1 levels measured, nearly all of it
# 4:2:0 chroma at the edges of the red square; mean shift of a channel 0.44 measured.
LOSSY_VIDEO_MEAN_LEVELS = 4.0
LOSSY_VIDEO_SHIFT_LEVELS = 1.0

# HDR made by formula from an SDR colour in 10 bits and limited range, and back: quantised twice;
# measured 2 at most, in blue, where one step of PQ or HLG is worth a level and more.
HDR_LEVELS = 2
# The same for a JPEG in a wide profile: its chroma is rounded too, at most 1.8 levels of blue, and
# the matrix enlarges that. 3 measured.
PROFILE_LEVELS = 3
# Rounding to 8 bits, and tables of 65536 square roots: 0.51 measured.
TABLE_LEVELS = 0.6

# 256 dithered colours against colourful noise 64 px wide: 8.3 measured.
GIF_LEVELS = 12
# Sound of a sweep of two tones through AAC, MP3 or Opus at 56 to 80 kbit/s a channel, in step.
TRANSCODED_SOUND_DB = 15.0
# Picture against sound after a change of container, codec or both: 0.5 ms measured.
IN_STEP_SECONDS = 0.002

# --- embedded face networks ---
FOLDED_NORM_ATOL = 1e-5
"""Folding moves float32 roundings through up to fifteen layers; measured at most 1.4e-7."""
VIEW_POINT_ATOL_PIXELS = 0.15
"""Bilinear sampling of a dot 3 px wide, quantised to 8 bits; measured at most 0.036 px."""

# --- alignment ---
# Golden FFHQ crops: the public code shrinks large pictures by Lanczos' filter, ours averages them.
# Mean of absolute differences at most 1.9 measured; a shift of half a crop's pixel gives 2.1 to 6.
FFHQ_RESAMPLING_LEVELS = 2.0
# Bilinear sampling of a ramp, rounded to whole levels: at most half a level and a little.
CROP_ROUND_TRIP_PIXELS = 1.0
# Registration of a drawn 64 px face after known affine motions, worst of three points of which two
# lie outside the mask: 0.20 to 0.23 measured.
REGISTRATION_PIXELS = 0.35
# Second differences of the joined placement against those of landmarks that jitter by a pixel:
# 0.02 measured on a drawn face.
STEADIER_THAN_LANDMARKS = 0.1

SYNTHESIS_ATOL = 1e-4
"""Fast against plain synthesis, float32 on CPU: another order of sums on pictures up to about 15;
measured 5e-5 at 1024 px with config f, 7e-6 with the embedded generator."""

WINOGRAD_ATOL = 1e-4
"""Winograd's F(4, 3) in float32 on values of deviation 1; measured 2e-5, direct sums 1e-5."""

FLOW_ROUND_TRIP_ATOL = 1e-4
"""Flow forward and back in float64, solver tolerance 1e-8 or 32 fixed steps; see the measurement
in the test of fixed steps: their error falls with the fourth power."""

FLOW_GRADIENT_RTOL = 1e-4
"""Central differences with a step of 1e-4 degrees in float64 against the solver's own gradient."""

HALF_PICTURE_ATOL = {torch.float16: 0.05, torch.bfloat16: 0.4}
"""Half-precision features, pictures of about 10: 10 and 7 bits of mantissa, eight layers."""

# --- decoder ---
# Pose flow there and back, and float32 sums in another order, on the random 16 px bundle.
GENERATOR_ATOL = 1e-3
# Style on the activations or in the filters: another order of float32 operations.
FAST_RENDER_ATOL = 1e-4
# 16-bit features with the embedded generator, differences of 8-bit pictures: 0.11 levels on average
# with bfloat16 measured, 2.8 at most.
HALF_PRECISION_MEAN_LEVELS = 1.0
# Cut out bilinearly, pasted back bilinearly, rounded twice, on a linear ramp.
PASTE_BACK_LEVELS = 3

STARTUP_SECONDS = 0.3
"""`import sglat` and `sgl-info`: the format's bar; measured 0.03 s and 0.2 s of CPU time."""
STARTUP_NUMPY_RATIO = 2.0
"""`sgl-info` against `import numpy` alone on the same busy machine; measured 1.4 to 1.7."""

# --- encoder ---
# Forward-mode derivative against central differences of step 3e-4 on a piecewise linear network in
# float32; measured 0.002, rising to 0.09 for steps that cross kinks.
JACOBIAN_RTOL = 0.01

# Values and derivatives of the embedded networks on a device that computes on the processor,
# relative to their length: PyTorch chooses other kernels for it; measured 9e-8.
FAR_RELATIVE = 1e-5

# A tiny person tuned for six steps in another type of number or order of sums: float32 and bfloat16
# on a processor differed by 0.2 dB.
OTHER_DEVICE_DB = 2.0

# A similarity fitted to five points of a mesh of tens of pixels in float32; measured 5e-6.
PLACEMENT_PIXELS = 1e-3

# One network of float32 run by ONNX Runtime and by torch on pictures of 8 bits; measured 1.0000,
# with red and blue exchanged 0.39.
SAME_NETWORK_COSINE = 0.9999

# Weights of a few training steps stored in half precision against single; measured 2.8e-3.
HALF_WEIGHTS_ATOL = 1e-2

# --- the player ---
PLAYER_WEIGHT_ATOL = 1e-4
"""Weight deltas summed in float64 against torch's float32; measured 1.5e-5 on two tuned clips."""
PLAYER_STYLE_ATOL = 1e-4
"""Pose flow and affine layers in float64 against float32; measured 1.6e-5 on styles up to 20."""
PLAYER_PICTURE_DB = 45.0
"""Least PSNR of the page's pictures against the decoder's, 8-bit filters included; measured 58 dB
with them and 95 dB with the decoder's own weights, WebGPU and WebGL2."""
PLAYER_MARK_SHARE = 0.999
"""Least share of values of a picture that the page marks as the decoder does; sums of other
precision move a level over a rounding step, in less than one value of a thousand."""
