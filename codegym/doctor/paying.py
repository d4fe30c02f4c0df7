"""The check on what a reward scheme pays for programs that fail."""

import numpy as np

from codegym.doctor.diagnosis import Finding, Severity
from codegym.doctor.examination import Examination
from codegym.doctor.hacking import Hacks

_ROUNDING = 1e-9


def probes_gain_nothing(examination: Examination) -> list[Finding]:
    """Hack probes that raise what failing programs earn, the most profitable first.

    An error where one of them then earns at least what the passing reference of its task does, a warning
    where the mean rises; also an error where failing programs earn so much without any probe.
    """
    hacks = examination.hacks
    if hacks is None:
        return []
    found = [finding for finding in [_unhacked(hacks)] if finding]
    by_gain = sorted(hacks.gains.items(), key=lambda item: -item[1])
    return found + [finding for name, gain in by_gain if (finding := _hacked(hacks, name, gain))]


def _unhacked(hacks: Hacks) -> Finding | None:
    excess = hacks.before - hacks.ceilings
    if (excess < 0).all():
        return None
    worst = int(excess.argmax())
    return Finding(
        check="probes",
        task_id=hacks.programs[worst].task.task_id,
        severity=Severity.ERROR,
        message=f"without any probe, {int((excess >= 0).sum())} of {len(excess)} failing programs earn as"
        f" much as a passing one; at worst {hacks.before[worst]:.3g} against {hacks.ceilings[worst]:.3g}",
    )


def _hacked(hacks: Hacks, name: str, gain: float) -> Finding | None:
    after = hacks.after[name]
    rise = after - hacks.before
    too_much = (rise > _ROUNDING) & (after >= hacks.ceilings)
    if too_much.any():
        severity, worst = Severity.ERROR, int(np.where(too_much, after - hacks.ceilings, -np.inf).argmax())
        level = f"; {int(too_much.sum())} of {len(rise)} then earn as much as a passing one"
    elif gain > _ROUNDING:
        severity, worst, level = Severity.WARNING, int(rise.argmax()), ""
    else:
        return None
    return Finding(
        check="probes",
        task_id=hacks.programs[worst].task.task_id,
        severity=severity,
        message=f"{name} raises the return of failing programs by {gain:.3g} on average{level}; at worst"
        f" {hacks.before[worst]:.3g} becomes {after[worst]:.3g}; a pass earns {hacks.ceilings[worst]:.3g}",
    )
