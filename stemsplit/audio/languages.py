"""ISO 639 language codes of two or three letters; some languages have two three-letter codes."""

from __future__ import annotations

_CODES = """
af afr, ar ara, az aze, be bel, bg bul, bn ben, bs bos, ca cat, cs ces cze, cy cym wel, da dan, de deu ger,
el ell gre, en eng, es spa, et est, eu eus baq, fa fas per, fi fin, fr fra fre, ga gle, gl glg, gu guj,
he heb, hi hin, hr hrv, hu hun, hy hye arm, id ind, is isl ice, it ita, ja jpn, ka kat geo, kk kaz, km khm,
kn kan, ko kor, la lat, lt lit, lv lav, mk mkd mac, ml mal, mn mon, mr mar, ms msa may, my mya bur,
nb nob, ne nep, nl nld dut, nn nno, no nor, pa pan, pl pol, pt por, ro ron rum, ru rus, sk slk slo, sl slv,
sq sqi alb, sr srp, sv swe, sw swa, ta tam, te tel, th tha, tl tgl, tr tur, uk ukr, ur urd, uz uzb, vi vie,
zh zho chi, zu zul
"""
_CANONICAL = {code: codes.split()[0] for codes in _CODES.split(",") for code in codes.split()}


def canonical(code: str) -> str:
    """Return the shortest code of a language, without a region: `en` for `eng`, `EN` and `en-GB`."""
    language = code.lower().partition("-")[0]
    return _CANONICAL.get(language, language)
