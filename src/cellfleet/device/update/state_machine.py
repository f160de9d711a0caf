"""The states and transitions of the agent as data: state -> event -> next state. ``docs/agent.svg`` shows it.

Entering a state starts its action (``actions``). The journal holds the state before its action starts, so an action that a
power cut interrupted runs again; every action may run twice.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from cellfleet.wire.states import UpdateState

Event = Literal[
    "update-wanted",
    "trusted",
    "refused",
    "downloaded",
    "failed",
    "installed",
    "passed",
    "may-activate",
    "activated",
    "good",
    "bad",
    "committed",
    "rolled-back",
    "withdrawn",
]
STATES: Final[tuple[UpdateState, ...]] = get_args(UpdateState)
EVENTS: Final[tuple[Event, ...]] = get_args(Event)

TABLE: Final[dict[UpdateState, dict[Event, UpdateState]]] = {
    "idle": {"update-wanted": "checking"},
    "checking": {"trusted": "downloading", "refused": "idle", "failed": "idle", "withdrawn": "idle"},
    "downloading": {"downloaded": "installing", "refused": "idle", "failed": "idle", "withdrawn": "idle"},
    "installing": {"installed": "self-testing", "refused": "idle", "failed": "idle", "withdrawn": "idle"},
    "self-testing": {"passed": "deferred", "refused": "idle", "failed": "idle", "withdrawn": "idle"},
    "deferred": {"may-activate": "activating", "withdrawn": "idle"},
    "activating": {"activated": "probation", "refused": "idle", "bad": "rolling-back"},
    "probation": {"good": "committing", "bad": "rolling-back"},
    "committing": {"committed": "idle"},
    "rolling-back": {"rolled-back": "idle"},
}

ACTION_TEXTS: Final[dict[UpdateState, str]] = {
    "idle": "check the desired state",
    "checking": "verify with both repositories",
    "downloading": "download, resume, check length and hash",
    "installing": "validate the bundle, write the slot",
    "self-testing": "segment golden frames: its own and the active ones",
    "deferred": "wait while inhibited or outside the window",
    "activating": "start the segmenter, then write the pointer",
    "probation": "watch the frames that it segments",
    "committing": "keep it; remove old slots",
    "rolling-back": "restore the pointer, repin, segment again",
}

BEFORE_ACTIVATION: Final[frozenset[UpdateState]] = frozenset(
    {"checking", "downloading", "installing", "self-testing", "deferred"}
)


def next_state(state: UpdateState, event: Event) -> UpdateState:
    """The state after an event.

    Args:
        state: the state before.
        event: what happened.

    Raises:
        KeyError: the event cannot happen in that state; a defect of the caller.
    """
    return TABLE[state][event]
