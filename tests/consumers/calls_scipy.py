"""Calls of SciPy, as a user writes them: the text, and by which ways a gradient must come back.

`x` and `y` have two axes, `v` and `w` one, `s` rises, `m` is square, `q` are rows of three.
"""

from __future__ import annotations

#: The functions that are generic code, by text. "both": `backward` and `func.grad` give the
#: gradient; "func": `func.grad` does, and SciPy writes what `backward` has kept, which is refused;
#: "none": there is no gradient to compare, since results are counts, classes or Python's numbers,
#: or are written over where they are NaN.
CALLS = {
    "special.logsumexp(x)": "both",
    "special.logsumexp(x, axis=1, b=y, keepdims=True)": "func",
    "special.softmax(x, axis=1)": "both",
    "special.log_softmax(x, axis=0)": "func",
    "special.xlogy(x, y)": "both",
    "special.rel_entr(x, y)": "both",
    "stats.zmap(x, y)": "both",
    "stats.zscore(x, axis=1)": "func",
    "stats.gzscore(x)": "func",
    "stats.skew(x)": "both",
    "stats.kurtosis(x, axis=1)": "both",
    "stats.moment(x, order=3)": "both",
    "stats.gmean(x)": "both",
    "stats.hmean(x)": "both",
    "stats.pmean(x, 2.5)": "both",
    "stats.variation(x)": "both",
    "stats.sem(x)": "both",
    "stats.tmean(x, limits=(0.3, 1.9))": "both",
    "stats.tvar(x)": "both",
    "stats.tstd(x)": "both",
    "stats.tsem(x)": "both",
    "stats.tmin(x, lowerlimit=0.3)": "both",
    "stats.tmax(x)": "both",
    "stats.kstat(x, 3)": "both",
    "stats.kstatvar(v)": "both",
    "stats.describe(x)": "both",
    "stats.circmean(x)": "both",
    "stats.circvar(x)": "both",
    "stats.circstd(x)": "both",
    "stats.iqr(v)": "both",
    "stats.quantile(v, 0.3)": "both",
    "stats.trim_mean(x, 0.25)": "both",
    "stats.boxcox_llf(0.5, v)": "func",
    "stats.lmoment(v)": "func",
    "stats.directional_stats(x).mean_direction": "both",
    "integrate.trapezoid(v, x=s)": "both",
    "integrate.cumulative_trapezoid(v, x=s)": "both",
    "integrate.cumulative_simpson(v, x=s)": "both",
    "integrate.cubature(lambda t: t[:, 0] * t[:, 1], 0 * v[:2], v[:2]).estimate": "both",
    "integrate.tanhsinh(lambda t, c: t * c, 0 * v, v, args=(v,)).integral": "both",
    "optimize.rosen(v)": "both",
    "optimize.rosen_der(v)": "both",
    "optimize.rosen_hess(v)": "both",
    "optimize.rosen_hess_prod(v, w)": "both",
    "elementwise.find_root(lambda t, c: t * t - c, (0 * v, v + 1), args=(v,)).x": "both",
    "differentiate.derivative(lambda t: t**3, v).df": "both",
    "differentiate.jacobian(lambda t: t**2, v[:3]).df": "both",
    "differentiate.hessian(optimize.rosen, v[:3]).ddf": "both",
    "fft.fft(x)": "both",
    "fft.rfft(x, n=6, norm='ortho')": "both",
    "fft.irfft(x)": "both",
    "fft.fftn(x)": "both",
    "fft.fftshift(x)": "both",
    "signal.hilbert(v)": "both",
    "signal.fftconvolve(v, w)": "both",
    "signal.oaconvolve(v, w[:3])": "both",
    "signal.resample(v, 5)": "both",
    "signal.freqz(v, worN=8)[1]": "both",
    "signal.freqs(v, w, worN=s)[1]": "both",
    "vq.whiten(x)": "func",
    "Rotation.from_quat(m).apply(q)": "both",
    "Rotation.from_rotvec(q).as_matrix()": "both",
    "Rotation.from_rotvec(q).magnitude()": "both",
    "Rotation.from_euler('xyz', q).as_euler('zyx')": "both",
    "stats.rankdata(v)": "none",
    "stats.fligner(v, w)": "none",
    "stats.mannwhitneyu(v, w)": "none",
    "stats.wilcoxon(v, w)": "none",
    "stats.cramervonmises(x, special.ndtr, axis=1)": "none",
    "stats.false_discovery_control(p)": "func",
}

#: Functions of which SciPy has compiled code alone: tensors go to NumPy, and results come back;
#: what requires grad does not go there, and says so.
COMPILED = """special.expit(x) special.gammaln(x) special.entr(x) special.erf(x) special.ndtr(x)
special.betaln(x,y) special.zeta(x+2,y) stats.ttest_ind(v,w) stats.ttest_rel(v,w)
stats.ttest_1samp(x,1.0) stats.pearsonr(v,w) stats.f_oneway(v,w) stats.levene(v,w)
stats.bartlett(v,w) stats.jarque_bera(x) stats.alexandergovern(v,w).pvalue
stats.combine_pvalues(p) stats.entropy(x) signal.detrend(v) signal.medfilt(v)
signal.savgol_filter(v,3,1) signal.lfilter(v[:3],w[:3],v) signal.convolve(v,w) fft.dct(x)
ndimage.gaussian_filter(x,1.0) ndimage.sobel(x) vq.vq(x,y[:2]) hierarchy.linkage(x)""".split()
