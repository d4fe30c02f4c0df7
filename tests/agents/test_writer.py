from agents.writer import LineWriter
from codegym.episode import END_OF_PROGRAM
from prm.completion import Completion


class Script:
    """A sampler that writes what it is told to, and counts."""

    identity = "script"

    def __init__(self, *texts, finished=True):
        self.texts, self.finished, self.calls = list(texts), finished, []

    def sample(self, prompts, *, n=1, max_new_tokens, temperature=1.0, seed=0):
        self.calls.append((list(prompts), temperature, seed))
        return [
            [Completion(token_ids=(0,), logprobs=(0.0,), text=self.texts.pop(0), finished=self.finished)]
            for _ in prompts
        ]


def encode(texts):
    return {"input_ids": [[len(text)] for text in texts]}


def test_one_program_answers_line_by_line():
    script = Script("a\n\nb\n")
    writer = LineWriter(script, encode, 9)
    text, lines = "prompt\n", []
    while not lines or lines[-1] != END_OF_PROGRAM:
        (line,) = writer.next_lines([text], deterministic=True)
        lines.append(line)
        text += f"{line}\n"
    assert lines == ["a", "", "b", END_OF_PROGRAM]
    assert len(script.calls) == 1
    assert script.calls[0][1] == 0.0


def test_an_unforeseen_text_is_written_anew():
    writer = LineWriter(Script("a\nb\n", "c\n"), encode, 9)
    assert writer.next_lines(["p\n"], deterministic=False) == ["a"]
    assert writer.next_lines(["p\nother\n"], deterministic=False) == ["c"]


def test_many_texts_are_written_in_one_batch():
    script = Script("a\n", "b\n")
    assert LineWriter(script, encode, 9).next_lines(["p\n", "q\n"], deterministic=False) == ["a", "b"]
    assert len(script.calls) == 1


def test_the_same_text_twice_in_one_call():
    writer = LineWriter(Script("a\nx\n", "a\ny\n"), encode, 9)
    assert writer.next_lines(["p\n", "p\n"], deterministic=False) == ["a", "a"]
    assert len(writer.next_lines(["p\na\n"], deterministic=False)) == 1


def test_each_copy_of_a_text_in_one_call_gets_a_draw_of_its_own():
    script = Script("a\n", "c\n", "b\n")
    writer = LineWriter(script, encode, 9)
    assert writer.next_lines(["p\n", "q\n", "p\n"], deterministic=False) == ["a", "c", "b"]
    assert len(script.calls) == 1


def test_draws_have_the_temperature_that_was_asked_for():
    script = Script("a\n", "b\n")
    writer = LineWriter(script, encode, 9, temperature=0.7)
    writer.next_lines(["p\n"], deterministic=False)
    writer.next_lines(["p\n"], deterministic=True)
    assert [temperature for _, temperature, _ in script.calls] == [0.7, 0.0]


def test_repeated_stochastic_calls_draw_anew():
    script = Script("a\n", "b\n")
    writer = LineWriter(script, encode, 9)
    assert [writer.next_lines(["p\n"], deterministic=False) for _ in range(2)] == [["a"], ["b"]]
    assert script.calls[0][2] != script.calls[1][2]


def test_forgetting():
    script = Script("a\nb\n", "c\n")
    writer = LineWriter(script, encode, 9)
    writer.next_lines(["p\n"], deterministic=True)
    writer.forget()
    assert writer.next_lines(["p\na\n"], deterministic=True) == ["c"]


def test_a_program_that_was_cut_is_written_on():
    writer = LineWriter(Script("a\nb", "c\n", finished=False), encode, 9)
    text, lines = "p\n", []
    for _ in range(3):
        (line,) = writer.next_lines([text], deterministic=True)
        lines.append(line)
        text += f"{line}\n"
    assert lines == ["a", "b", "c"]


def test_an_ended_empty_program_ends():
    assert LineWriter(Script(""), encode, 9).next_lines(["p\n"], deterministic=True) == [END_OF_PROGRAM]


def test_a_cut_empty_program_is_an_empty_line():
    assert LineWriter(Script("", finished=False), encode, 9).next_lines(["p\n"], deterministic=True) == [""]
