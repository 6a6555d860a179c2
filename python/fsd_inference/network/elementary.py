"""exp and log of float64 arrays with the same bits on every platform.

NumPy and the C library choose their implementation by the processor, and their last bits differ. These functions are
the algorithms of FreeBSD's msun (fdlibm), written as single additions, multiplications and divisions, which IEEE 754
rounds everywhere alike. Their largest error is 1 ulp.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_INVERSE_LN2 = 1.44269504088896338700e00
_EXP = (
    1.66666666666666019037e-01,
    -2.77777777770155933842e-03,
    6.61375632143793436117e-05,
    -1.65339022054652515390e-06,
    4.13813679705723846039e-08,
)
_LOG_ODD = (
    6.666666666666735130e-01,
    2.857142874366239149e-01,
    1.818357216161805012e-01,
    1.479819860511658591e-01,
)
_LOG_EVEN = (3.999999999940941908e-01, 2.222219843214978396e-01, 1.531383769920937332e-01)
_LEAST_EXPONENT = -700.0  # the results are normal numbers down to here


def exp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return exp(x) elementwise for -inf < x <= 700; results below exp(-700) are 0."""
    kept = np.maximum(x, _LEAST_EXPONENT)
    k = np.rint(kept * _INVERSE_LN2)
    high, low = kept - k * _LN2_HIGH, k * _LN2_LOW
    r = high - low
    c = r - r * r * _polynomial(r * r, _EXP)
    y = 1.0 - ((low - r * c / (2.0 - c)) - high)
    scaled: NDArray[np.float64] = np.ldexp(y, k.astype(np.int32))
    return np.where(x < _LEAST_EXPONENT, 0.0, scaled)


def log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the natural logarithm of positive, finite, normal numbers elementwise."""
    mantissa, exponent = np.frexp(x)
    is_small = mantissa < np.sqrt(0.5)
    f = np.where(is_small, 2.0 * mantissa, mantissa) - 1.0
    k = (exponent - is_small).astype(np.float64)
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    half = 0.5 * f * f
    remainder = z * _polynomial(w, _LOG_ODD) + w * _polynomial(w, _LOG_EVEN)
    result: NDArray[np.float64] = k * _LN2_HIGH - ((half - (s * (half + remainder) + k * _LN2_LOW)) - f)
    return result


def _polynomial(x: NDArray[np.float64], coefficients: tuple[float, ...]) -> NDArray[np.float64]:
    """Evaluate c[0] + c[1] x + ... by Horner's scheme."""
    result = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    return result
