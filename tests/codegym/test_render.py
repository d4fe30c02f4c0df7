"""Pictures of episodes: complete, with rewards, and safe to look at."""

from dataclasses import replace
from html.parser import HTMLParser

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import RecordVideo, RenderCollection
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import END_OF_PROGRAM, CodeGenEnv, Episode, ProgramActions, RewardWrapper
from codegym.render import (
    FRAME_HEIGHT,
    FRAME_WIDTH,
    RENDERERS,
    draw_ansi,
    draw_html,
    draw_rgb_array,
    printable,
    rows,
)
from codegym.testing import DOUBLE, ScriptedJudge, judgement

RIGHT = ["    y = x + x", "    return y"]
OPEN = Episode(task=DOUBLE, lines=tuple(RIGHT))
ENDED = replace(OPEN, terminated=True, judgement=judgement(DOUBLE, 3))
CUT = replace(OPEN, truncated=True, judgement=judgement(DOUBLE, 1))


class LengthScheme:
    """Pays each line 0.1 per character of its stripped text, and the end nothing."""

    def step(self, episodes):
        return np.array([len(e.lines[-1].strip()) / 10 for e in episodes])

    def credit(self, episodes):
        return [
            np.array([len(line.strip()) / 10 for line in e.lines] + [0.0] * e.terminated) for e in episodes
        ]


@pytest.fixture
def judge():
    return ScriptedJudge(lambda task, source: judgement(task, 3 if "return y" in source else 1))


def make(judge, mode, **options):
    return gym.make("CodeGen-v0", tasks=[DOUBLE], judge=judge, render_mode=mode, **options)


def play(env, actions):
    env.reset()
    for action in actions:
        env.step(action)


def test_text_has_prompt_lines_rewards_and_verdict():
    assert draw_ansi(ENDED, [0.25, -0.5, 1.0]) == (
        "# check/double\n"
        "def double(x):\n"
        "   1  +0.250 |     y = x + x\n"
        "   2  -0.500 |     return y\n"
        "      +1.000 | # end of program\n"
        "# passed: 3 of 3 tests, return 0.750\n"
    )


def test_no_zero_is_negative():
    assert "-0.000" in f"{-0.0001:+.3f}"
    for draw in (draw_ansi, draw_html):
        drawn = draw(ENDED, [-0.0, -0.0001, -0.0])
        assert "-0.000" not in drawn
        assert drawn.count("+0.000") == 3
        assert "return 0.000" in drawn


def test_rewards_may_be_missing():
    assert draw_ansi(OPEN) == (
        "# check/double\ndef double(x):\n   1         |     y = x + x\n   2         |     return y\n"
    )
    assert [row.reward for row in rows(OPEN, [0.5])] == [None, None, 0.5, None]
    assert [row.reward for row in rows(ENDED)][-2:] == [None, None]
    assert draw_ansi(CUT).endswith("# wrong_answer: 1 of 3 tests\n")
    assert "end of program" not in draw_ansi(CUT, [0.0, 0.0])


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("x = 1", "x = 1"),
        ("\tλ = '→😀'", "\tλ = '→😀'"),
        ("\x1b[2J\r", "\\x1b[2J\\r"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("\x00\x07\x9b", "\\x00\\x07\\x9b"),
        ("\u2028\ud800\u200b", "\\u2028\\ud800\\u200b"),
    ],
)
def test_what_a_terminal_obeys_or_a_reader_cannot_see_is_spelled_out(line, shown):
    assert printable(line) == shown


@given(st.text())
def test_printable_text_is_printable(text):
    assert all(c.isprintable() or c == "\t" for c in printable(text))
    printable(text).encode()


class TextOfCells(HTMLParser):
    """Collects tags and text, as a browser would understand them."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text.append(data)


@settings(max_examples=50)
@given(st.text(st.characters(exclude_characters="\n\0"), max_size=30))
def test_html_shows_every_line_as_text_and_nothing_as_markup(line):
    parser = TextOfCells()
    parser.feed(
        draw_html(replace(OPEN, lines=(line, "<script>alert(1)</script>", "</pre>&lt;")), [0.5, -1.0])
    )
    assert parser.tags == {
        "html", "head", "meta", "title", "style", "body", "table", "tr", "td", "pre",
    }  # fmt: skip
    assert {"<script>alert(1)</script>", "</pre>&lt;", "+0.500", "-1.000"} <= set(parser.text)
    assert not line.strip() or printable(line) in "".join(parser.text)


def test_html_of_a_hostile_task():
    task = replace(DOUBLE, task_id="</title><img src=x>", prompt="<b>\n")
    page = draw_html(Episode(task=task))
    assert "<img" not in page
    assert "<b>" not in page


def test_html_tints_lines_by_the_sign_and_size_of_their_reward():
    page = draw_html(ENDED, [0.5, -1.0, 0.0])
    tints = [part.split(")")[0] for part in page.split("rgb(")[1:]]
    assert tints[2:5] == ["207,239,213", "252,168,168", "255,255,255"]


def test_a_frame_is_a_picture_of_fixed_size():
    frames = [draw_rgb_array(e, r) for e, r in ((OPEN, []), (OPEN, [0.5, -0.5]), (ENDED, [0.0, 0.0, 1.0]))]
    assert all(f.shape == (FRAME_HEIGHT, FRAME_WIDTH, 3) and f.dtype == np.uint8 for f in frames)
    assert len({frame.tobytes() for frame in frames}) == 3
    assert all((frame == 255).mean() > 0.5 for frame in frames)
    frames[0][:] = 0  # its own memory


def test_a_frame_follows_the_newest_lines_and_takes_any_text():
    many = replace(OPEN, lines=tuple(f"x{i} = '{'ab' * i}'" for i in range(300)))
    more = many.write("\ud800\x1b[31m λ😀→ \t" + "x" * 10_000)
    assert draw_rgb_array(many).shape == draw_rgb_array(more).shape
    assert (draw_rgb_array(many) != draw_rgb_array(more)).any()


@pytest.mark.parametrize("mode", RENDERERS)
def test_an_environment_renders_in_each_mode_what_was_paid(judge, mode):
    env = RewardWrapper(make(judge, mode), LengthScheme())
    play(env, [*RIGHT, END_OF_PROGRAM])
    expected = RENDERERS[mode](env.unwrapped.episode, [0.9, 0.8, 0.0])
    assert np.array_equal(env.render(), expected)


def test_rewards_are_those_of_the_wrapper_or_of_the_environment(judge):
    plain, paid = make(judge, "ansi"), RewardWrapper(make(judge, "ansi"), LengthScheme())
    play(plain, [*RIGHT, END_OF_PROGRAM])
    play(paid, RIGHT)
    assert plain.unwrapped.rewards == (0.0, 0.0, 1.0)
    assert paid.unwrapped.rewards == (0.9, 0.8)
    paid.reset()
    assert paid.unwrapped.rewards == ()
    assert "|" not in paid.render()


def test_human_mode_draws_each_step_once_with_the_wrappers_reward(judge, capsys):
    env = RewardWrapper(CodeGenEnv([DOUBLE], judge, render_mode="human"), LengthScheme())
    play(env, RIGHT)
    assert env.render() is None
    shown = capsys.readouterr().out
    assert shown.count("# check/double") == 3
    assert shown.endswith("   1  +0.900 |     y = x + x\n   2  +0.800 |     return y\n")
    assert "\x1b" not in shown


def test_human_mode_clears_a_terminal_and_only_that(judge, capsys, monkeypatch):
    env = make(judge, "human")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    play(env, ["    y = '\x1b[31m'"])
    shown = capsys.readouterr().out
    assert shown.count("\x1b[H\x1b[2J") == 2
    assert shown.count("\x1b") == 4
    assert "\\x1b[31m" in shown


def test_rendering_without_a_mode_warns(judge):
    env = CodeGenEnv([DOUBLE], judge)
    env.reset()
    with pytest.warns(UserWarning, match="render mode"):
        assert env.render() is None


@pytest.mark.parametrize("mode", RENDERERS)
def test_render_collection_has_a_picture_per_step(judge, mode):
    env = RenderCollection(RewardWrapper(make(judge, mode), LengthScheme()))
    play(env, RIGHT)
    episodes = [Episode(task=DOUBLE, lines=tuple(RIGHT[:n])) for n in range(3)]
    frames = env.render()
    assert len(frames) == 3
    for frame, episode in zip(frames, episodes, strict=True):
        rewards = [len(line.strip()) / 10 for line in episode.lines]
        assert np.array_equal(frame, RENDERERS[mode](episode, rewards))
    assert env.render() == []


def test_the_list_modes_of_make_work(judge):
    env = make(judge, "ansi_list")
    play(env, RIGHT)
    assert [frame.count(" | ") for frame in env.render()] == [0, 1, 2]


def test_a_video_is_recorded(judge, tmp_path):
    pytest.importorskip("moviepy")
    env = RecordVideo(
        ProgramActions(RewardWrapper(make(judge, "rgb_array"), LengthScheme())),
        str(tmp_path / "video"),
        episode_trigger=lambda episode: True,
    )
    for _ in range(2):
        env.reset()
        env.step("\n".join(RIGHT))
    env.close()
    sizes = [path.stat().st_size for path in (tmp_path / "video").glob("*.mp4")]
    assert len(sizes) == 2
    assert all(size > 1000 for size in sizes)
