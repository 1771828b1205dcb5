"""List the clips: the name, class, description, level and sound of each."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from machine_sounds import (
    CAR_EXHAUST,
    air_conditioner,
    beeper,
    blower,
    brake,
    electric_drill,
    engine,
    hammer_drill,
    helicopter,
    horn,
    siren,
    train,
    truck,
)
from recorded_sounds import band_limited, overloaded, street
from reference_signals import dither, silence, single_click, tone, white_noise
from struck_sounds import bell, chords, clinks, footsteps, hammer, ticking
from vocal_sounds import babble, baby, birds, dog, rooster, sneeze, voice
from waveforms import DURATION_S, Modes, Points, Sound
from weather_sounds import fire, rain, stream, surf, thunder, wind

LSB_DBFS = 20 * np.log10(1 / 32768)


@dataclass(frozen=True)
class Clip:
    """One clip: its name, class (`label`), description, level and sound.

    `peak_dbfs` is the peak of the sound, from -90.3 to -3. `floor_dbfs` is the RMS of the pink
    background noise that `synthesise.render` adds, or None for no noise. After `end_s` the clip is
    digital silence.
    """

    name: str
    label: str
    description: str
    peak_dbfs: float
    floor_dbfs: float | None
    sound: Sound
    end_s: float = DURATION_S


TWIN_EXHAUST: Modes = [(110, 60, 0), (340, 140, 0), (980, 350, -3), (2700, 900, -6)]
SAW_EXHAUST: Modes = [(270, 100, -4), (820, 260, 0), (2300, 600, 4), (5200, 1500, 4)]
CHISEL: Modes = [(1080, 0.009, 0), (2260, 0.007, -2), (3870, 0.005, -5), (6100, 0.003, -9)]
DRILL_STEEL: Modes = [(1640, 0.012, 0), (3310, 0.01, -1), (5720, 0.007, -4), (9400, 0.004, -8)]

IDLING = partial(
    engine,
    firing_hz=[(0, 26), (1.5, 25)],
    cylinders=4,
    spread=0.15,
    exhaust=CAR_EXHAUST,
    rattle_db=-17,
)
ACCELERATING = partial(
    engine,
    firing_hz=[(0, 34), (0.9, 128), (1.0, 90), (1.5, 135)],
    cylinders=4,
    spread=0.15,
    exhaust=CAR_EXHAUST,
    rattle_db=-20,
)
MOTORCYCLE = partial(
    engine,
    firing_hz=[(0, 24), (0.3, 26), (0.6, 78), (0.75, 60), (1.1, 112), (1.5, 70)],
    cylinders=2,
    spread=0.25,
    exhaust=TWIN_EXHAUST,
    rattle_db=-16,
)
CHAINSAW = partial(
    engine,
    firing_hz=[(0, 60), (0.25, 158), (0.6, 165), (0.75, 132), (1.5, 126)],
    cylinders=3,
    spread=0.12,
    exhaust=SAW_EXHAUST,
    rattle_db=-18,
)

WAIL = partial(siren, pitch_hz=[(0, 640), (1.1, 1420), (1.5, 1180)], decay_s=0.15)
YELP = partial(
    siren, pitch_hz=[(0.15 * i, 1450 if i % 2 else 640) for i in range(11)], decay_s=0.06
)
HI_LO = partial(siren, pitch_hz=[(0.499, 585), (0.5, 440), (0.999, 440), (1.0, 585)], decay_s=0.25)

BREAKER = partial(hammer_drill, blows_hz=[(0, 19), (0.3, 22)], modes=CHISEL, hiss_db=-24)
ROCK_DRILL = partial(hammer_drill, blows_hz=[(0, 46), (1.5, 47)], modes=DRILL_STEEL, hiss_db=-18)

LIGHT_RAIN = partial(rain, drops_per_s=70, hiss_db=-26)
HEAVY_RAIN = partial(rain, drops_per_s=700, hiss_db=-8)

LOW_VOICE = partial(voice, pitch_hz=112, tract=1.0, syllables_hz=4.2, effort_db=6)
HIGH_VOICE = partial(voice, pitch_hz=215, tract=1.17, syllables_hz=4.6, effort_db=5)
SHOUT = partial(voice, pitch_hz=330, tract=1.08, syllables_hz=2.2, effort_db=14)

TELEPHONE: Points = [(150, -50), (300, 0), (3400, 0), (4000, -90)]
OLD_RECORDER: Points = [(40, -40), (120, 0), (5000, -2), (7400, -8), (8000, -90)]
BY_TELEPHONE = partial(band_limited, source=HIGH_VOICE, response=TELEPHONE, hiss_db=-40)
OLD_RECORDING = partial(band_limited, source=street, response=OLD_RECORDER, hiss_db=-36)
OVERLOAD = partial(overloaded, source=MOTORCYCLE, drive_db=12)

CLIPS = (
    Clip("engine_idle", "vehicle", "car engine idling, quiet street", -15, -66, IDLING),
    Clip("engine_accelerating", "vehicle", "car engine accelerating", -7, -62, ACCELERATING),
    Clip("truck", "vehicle", "diesel truck slowing down, air brake", -9, -64, truck),
    Clip("motorcycle", "vehicle", "two-cylinder motorcycle revving", -6, -66, MOTORCYCLE),
    Clip("helicopter", "vehicle", "helicopter overhead", -14, -60, helicopter),
    Clip("train", "vehicle", "train passing over joints", -6, -66, train),
    Clip("brake_squeal", "vehicle", "squealing brakes", -13, -70, brake),
    Clip("chainsaw", "machinery", "two-stroke saw, revving, cutting", -14, -66, CHAINSAW),
    Clip("leaf_blower", "machinery", "leaf blower, far off", -27, -64, blower),
    Clip("jackhammer", "machinery", "pneumatic breaker", -10, None, BREAKER),
    Clip("rock_drill", "machinery", "rock drill, far off", -27, -64, ROCK_DRILL),
    Clip("electric_drill", "machinery", "drill starts, bites, stops", -16, -75, electric_drill),
    Clip("air_conditioner", "machinery", "60/120 Hz hum and fan", -33, -80, air_conditioner),
    Clip("siren_wail", "signal", "slow siren with street echoes", -12, -58, WAIL),
    Clip("siren_yelp", "signal", "fast siren, close, clean", -4, -84, YELP),
    Clip("siren_hi_lo", "signal", "two-tone siren, distant", -30, -62, HI_LO),
    Clip("car_horn", "signal", "two-tone car horn, two honks", -5, -66, horn),
    Clip("reversing_beeper", "signal", "reversing beeper, 1.2 kHz", -18, -68, beeper),
    Clip("bell", "signal", "one stroke of a bell, no background", -6, None, bell),
    Clip("hammering", "impact", "hammer on a steel plate, clean", -3, -84, hammer),
    Clip("footsteps", "impact", "steps on a pavement at night", -28, -72, footsteps),
    Clip("clinks", "impact", "glasses and keys", -13, -80, clinks),
    Clip("ticking", "impact", "clock in a quiet room", -36, -84, ticking),
    Clip("rain_light", "nature", "light rain, single drops", -25, None, LIGHT_RAIN),
    Clip("rain_heavy", "nature", "heavy rain", -26, None, HEAVY_RAIN),
    Clip("wind", "nature", "gusts on the microphone", -8, None, wind),
    Clip("stream", "nature", "running water", -24, None, stream),
    Clip("thunder", "nature", "crack and rolling thunder", -5, -70, thunder),
    Clip("surf", "nature", "a wave breaking", -22, None, surf),
    Clip("fire", "nature", "crackling fire", -11, -80, fire),
    Clip("voice_low", "voice", "low voice, close, quiet room", -10, -78, LOW_VOICE),
    Clip("voice_high", "voice", "high voice, noisy street", -16, -55, HIGH_VOICE),
    Clip("shout", "voice", "shouts, clean", -4, -80, SHOUT),
    Clip("babble", "voice", "six people talking in a hall", -20, -66, partial(babble, voices=6)),
    Clip("baby_cry", "voice", "baby crying", -10, -74, baby),
    Clip("sneeze", "voice", "gasp and sneeze", -7, -78, sneeze),
    Clip("dog_bark", "animal", "three barks in a courtyard", -5, -70, dog),
    Clip("birds", "animal", "chirps and a trill, very clean", -12, None, birds),
    Clip("rooster", "animal", "a crow", -14, -74, rooster),
    Clip("chords", "music", "two plucked chords, no background", -9, None, chords),
    Clip("street", "mixture", "engine, talk, steps, horn, birds", -19, None, street),
    Clip("street_quiet", "mixture", "such a street, very quiet", -45, None, street),
    Clip("telephone", "recording", "voice limited to 0.3-4 kHz", -12, None, BY_TELEPHONE),
    Clip("old_recorder", "recording", "street limited to 8 kHz", -12, None, OLD_RECORDING),
    Clip("overloaded", "recording", "motorcycle, clipped", -3, None, OVERLOAD),
    Clip("cut_off", "recording", "shout, then digital silence", -9, None, SHOUT, DURATION_S / 2),
    Clip("single_click", "test", "one click in digital silence", -6, None, single_click),
    Clip("tone", "test", "1 kHz sine", -20, None, partial(tone, hz=1000)),
    Clip("white_noise", "test", "white noise", -40, None, white_noise),
    Clip("dither", "test", "noise of one quantisation step", LSB_DBFS, None, dither),
    Clip("silence", "test", "digital silence", LSB_DBFS, None, silence),
)
