"""Load test of an OpenAI-compatible server: ``locust -f locustfile.py --host http://localhost:3000``.

Each scenario is a user class with a tag of its own. Class names or ``--tags`` pick some of them;
with neither all run but `BurstUser` and `HighThroughputUser`, which would disturb the others, as
many of each as its weight says: of 20 users half are `OpenAIEmulatorUser`. With ``--trace FILE``
`TraceUser` runs alone.
"""

from locust import between, constant, constant_pacing, events, tag, task

from loadtest.hooks import register
from loadtest.messages import (
    TOOLS,
    agent_step,
    png_data_url,
    question,
    question_on_image,
    question_on_text,
)
from loadtest.replay import ReplayUser
from loadtest.user import ChatUser, OpenLoopUser, Timing

register(events)


class OpenAIEmulatorUser(ChatUser):
    """A bit of everything: every endpoint, and chats in several timings."""

    weight = 10
    wait_time = between(0.5, 1.5)

    @tag("mixed")
    @task(4)
    def chat_fast(self) -> None:
        """Chat with a small model."""
        self.chat("chat", Timing(ttft_ms=50, itl_ms=10, output_length=20), question())

    @tag("mixed")
    @task(4)
    def chat_typical(self) -> None:
        """Chat with a large model."""
        self.chat("chat", Timing(ttft_ms=200, itl_ms=20, output_length=50), question())

    @tag("mixed")
    @task(1)
    def chat_slow(self) -> None:
        """Chat with a large model on a busy server."""
        self.chat("chat", Timing(ttft_ms=800, itl_ms=50, output_length=30), question())

    @tag("mixed")
    @task(1)
    def vision(self) -> None:
        """Ask about an image."""
        image = png_data_url(self.options.image_kb)
        timing = Timing(ttft_ms=200, itl_ms=20, output_length=30)
        self.chat("vision", timing, question_on_image(image))

    @tag("mixed")
    @task(1)
    def models(self) -> None:
        """List the models."""
        self.list_models()

    @tag("mixed")
    @task(1)
    def health(self) -> None:
        """Check the server's health."""
        self.check_health()


class ShortChatUser(ChatUser):
    """A short question and a short answer, as in a chat window."""

    weight = 3
    wait_time = between(0.5, 1.5)

    @tag("chat-short")
    @task
    def ask(self) -> None:
        """Ask."""
        self.chat("chat-short", Timing(ttft_ms=100, itl_ms=20, output_length=30), question())


class LongChatUser(ChatUser):
    """A short question and a long answer: the stream is what counts."""

    weight = 2
    wait_time = between(0.5, 1.5)

    @tag("chat-long")
    @task
    def ask(self) -> None:
        """Ask."""
        self.chat("chat-long", Timing(ttft_ms=200, itl_ms=15, output_length=300), question())


class RetrievalUser(ChatUser):
    """A prompt of ``--prompt-words`` words and a short answer: TTFT is what counts."""

    weight = 2
    wait_time = between(0.5, 1.5)

    @tag("retrieval")
    @task
    def ask(self) -> None:
        """Ask about a passage."""
        timing = Timing(ttft_ms=400, itl_ms=20, output_length=20)
        self.chat("retrieval", timing, question_on_text(self.options.prompt_words))


class VisionUser(ChatUser):
    """An image of ``--image-kb`` in the request, or now and then ``--image-url``."""

    wait_time = between(0.5, 1.5)
    model = "gpt-4-vision-preview"
    timing = Timing(ttft_ms=300, itl_ms=20, output_length=40)

    @tag("vision")
    @task(3)
    def ask_with_data(self) -> None:
        """Ask about an image that comes along."""
        image = png_data_url(self.options.image_kb)
        self.chat("vision-base64", self.timing, question_on_image(image))

    @tag("vision")
    @task(1)
    def ask_with_url(self) -> None:
        """Ask about an image on the web."""
        self.chat("vision-url", self.timing, question_on_image(self.options.image_url))


class AgentUser(ChatUser):
    """An agent that asks for three tools, one after the other, in an ever longer conversation.

    The calls in the conversation are fixed, so that every server sees the same load, whatever it
    answers. The emulator answers the question with a call, and what tools returned with text.
    """

    wait_time = between(0.5, 1.5)

    @tag("agent")
    @task
    def work(self) -> None:
        """Go through all steps without a pause."""
        for step in range(4):
            timing = Timing(ttft_ms=150, itl_ms=15, output_length=25, calls_tool=True)
            self.chat("agent", timing, agent_step(step), tools=TOOLS)


class BurstUser(ChatUser):
    """Every 5 s, ``--burst-size`` requests at the same instant; runs only when it is picked."""

    only_when_picked = True
    wait_time = constant_pacing(5)

    @tag("burst")
    @task
    def burst(self) -> None:
        """Send a burst and wait for all answers."""
        timing = Timing(ttft_ms=100, itl_ms=20, output_length=30)
        for _ in range(self.options.burst_size):
            self.start_chat("burst", timing, question())
        self.in_flight.join()


class SteadyRateUser(OpenLoopUser):
    """``--rate`` requests/s from each user, whether or not the server keeps up (open loop)."""

    @tag("steady-rate")
    @task
    def ask(self) -> None:
        """Start the next request when it is due."""
        timing = Timing(ttft_ms=100, itl_ms=20, output_length=30)
        self.start_when_due("steady-rate", timing, question())


class HighThroughputUser(ChatUser):
    """Short answers without delay and without a pause: as many requests as the server takes.

    Runs only when it is picked: one such user outnumbers and slows all the others.
    """

    only_when_picked = True
    wait_time = constant(0)

    @tag("high-throughput")
    @task
    def ask(self) -> None:
        """Ask."""
        self.chat("high-throughput", Timing(ttft_ms=0, itl_ms=0, output_length=5), question())


class TraceUser(ReplayUser):
    """The requests of ``--trace`` at their recorded times; one user in each worker is enough."""

    @tag("trace")
    @task
    def replay(self) -> None:
        """Start the next request when it is due."""
        self.replay_next("trace")
