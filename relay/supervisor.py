"""Supervisor: starts the workers, and sees that as many are at work as there should be.

It opens the sockets, or receives them, and forks a worker for each core.  A worker has the code that the supervisor
has, also when what lies on the disk was exchanged meanwhile, and everything else of its own: no connection to the
store, no event loop and no thread crosses the fork, because the supervisor never has any.

* A worker that dies is replaced; one that dies again and again is waited for longer each time, while the others go on.
* A worker that does nothing for ``server.hang_seconds``, or takes no connections ``server.start_seconds`` after its
  start, is ended, which makes it one that died.
* One worker leads: it does what is to be done once.  When it dies, another one is told to.
* SIGTERM and SIGINT let everybody finish, for ``server.drain_seconds``; told a second time, at once.
* SIGHUP reads the settings again; where they cannot be used, those from before go on.
* SIGUSR2 hands over to the program as it lies on the disk now (`relay.succession`), without refusing a connection.

The supervisor does nothing else, so that there is nothing for it to fail at.  Should it end all the same, the workers
notice by the end of their line, let their clients finish and go too.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NoReturn

from relay import census, journal
from relay.common import Common
from relay.config import Config
from relay.crew import Crew
from relay.errors import ConfigError, Deferred, RelayError
from relay.ledger import storefile
from relay.listening import Entrances, open_entrances, receive, socket_path
from relay.notifying import Notifier
from relay.orders import Line, Word
from relay.processes import State, Worker, has_ended, name_process, reap
from relay.server import Post, work
from relay.succession import Legacy, Successor, find_legacy

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)
_STDERR = 2
_TICK_SECONDS = 1.0
# A worker that lived so long had no trouble at its start.
_SETTLED_SECONDS = 60.0
_AGAIN_MOST_SECONDS = 30.0
_DOUBLINGS_MOST = 6
# How often a worker that starts may wait for the store, each time for `store.lock_wait_seconds`.
_START_WAITS = 4
# Beyond the time for draining: for the last commits, and for connections to end.
_END_SECONDS = 30.0
_END_SOON_SECONDS = 5.0
_SIGNALS_READ = 65_536


def serve(load: Callable[[], Config]) -> None:
    """Run the server until SIGTERM or SIGINT; ConfigError where it cannot start as things stand.

    Prints one line, ``listening on HOST:PORT``, to standard output once connections are taken.
    """
    legacy = find_legacy()
    try:
        config = load()
        journal.configure_journal(config.journal.format, config.journal.level)
        Supervisor(config, load, legacy).run()
    except (RelayError, OSError) as error:
        if legacy is None:
            raise
        # The one that hands over tells it in the journal that both write to.
        legacy.report(str(error))
        sys.exit(1)
    finally:
        _forget_unsaid()


def _forget_unsaid() -> None:
    """Drop what could not be told to a terminal that is gone: Python would end with 120 because of it."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class Supervisor:
    """One a server, in a process that does nothing else."""

    def __init__(self, config: Config, load: Callable[[], Config], legacy: Legacy | None = None) -> None:
        """Prepare; nothing listens yet."""
        self._config = config
        self._load = load
        self._legacy = legacy
        self._successor: Successor | None = None
        self._is_succeeded = False
        self._size = config.server.worker_count
        self._line = journal.new_journal()
        self._crew = Crew(self._size)
        self._first_place, self._common = self._share_memory()
        self._workers: dict[int, Worker] = {}
        self._leader: Worker | None = None
        self._failures: dict[int, int] = {}
        self._due: dict[int, float] = {}
        self._end_at: float | None = None
        self._told = False
        self._stops = 0
        self._tick_at = 0.0
        self._entrances: Entrances
        self._notifier = Notifier()
        self._tick_seconds = min(_TICK_SECONDS, self._notifier.sign_seconds or _TICK_SECONDS)
        self._is_on_terminal = os.isatty(_STDERR)
        self._signals, self._signalled = socket.socketpair()
        self._came: deque[int] = deque()

    def run(self) -> None:
        """Start, serve, and return when everybody has ended."""
        warning = storefile.check_disk(self._config.store.path)
        if warning:
            journal.store_warned(self._line, warning=warning)
        inherited = receive() if self._legacy is None else self._legacy.sockets()
        self._entrances = entrances = open_entrances(self._config, inherited)
        # What is there now is there for good: not to be looked through, and so not to be copied, by each worker.
        gc.collect()
        gc.freeze()
        self._catch_signals()
        try:
            self._start_all()
            if not self._told:
                self._tell_listening()
            if self._legacy is not None:
                self._legacy.report("it was told to end" if self._told else "")
            while self._workers or not self._told:
                self._turn_safely()
        finally:
            for worker in self._workers.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
            # A worker may end when nobody reads signals any more.
            signal.set_wakeup_fd(-1)
            entrances.close()
            if entrances.watch is not None and not self._is_succeeded:
                socket_path(self._config).unlink(missing_ok=True)
        journal.server_stopped(self._line, reason="handed over" if self._is_succeeded else "asked to")

    def _share_memory(self) -> tuple[int, Common]:
        """Return the first place of our workers in the memory in which limits are counted, and that memory."""
        common = None if self._legacy is None else self._legacy.memory(self._size)
        if common is not None and self._legacy is not None:
            return self._legacy.place, common
        # Twice as many places: while the server is handed over, the workers of both count.
        return 0, Common.create(self._size, 2 * self._size)

    def _catch_signals(self) -> None:
        for end in (self._signals, self._signalled):
            end.setblocking(False)
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            # The socket only wakes: it holds some hundred signals, and of a flood it drops whatever comes behind them.
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        # Who has ended is looked for at every turn: SIGCHLD need only wake.
        if number != signal.SIGCHLD:
            self._came.append(number)

    # --- starting ------------------------------------------------------------------------------------------------

    def _start_all(self) -> None:
        """Start the first worker, then the others beside each other; ConfigError where one cannot."""
        for group in ([0], range(1, self._size)):
            for index in group:
                if not self._told:
                    self._fork(index, is_first=index == 0)
            while any(worker.state is State.STARTING for worker in self._workers.values()):
                self._turn(is_starting=True)

    def _tell_listening(self) -> None:
        entrances, config = self._entrances, self._config
        metrics = entrances.metrics
        if entrances.watch is None:
            journal.unwatched(self._line, socket=str(socket_path(config)), cause=entrances.trouble)
        journal.watching(
            self._line,
            socket=str(socket_path(config)),
            address=None if metrics is None else config.metrics.host,
            port=None if metrics is None else int(metrics.getsockname()[1]),
        )
        workers = self._size if self._size > 1 else None
        journal.server_listening(self._line, host=entrances.host, port=entrances.port, workers=workers)
        print(f"listening on {entrances.host}:{entrances.port}", flush=True)  # noqa: T201 - what scripts wait for
        self._notifier.tell("READY=1", self._describe())

    def _describe(self) -> str:
        ready = sum(worker.state is State.READY for worker in self._workers.values())
        return f"STATUS={ready} of {self._size} workers serve port {self._entrances.port}"

    def _fork(self, index: int, *, is_first: bool = False) -> None:
        ours, theirs = Line.pair()
        sys.stdout.flush()
        sys.stderr.flush()
        # Until the child has let go of the supervisor's handlers, a signal to it would look like one to us.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._become_worker(self._plan_post(index, theirs, is_first=is_first), before)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._crew.enter(index, pid)
        self._workers[index] = Worker(index, pid, ours)
        self._due.pop(index, None)

    def _plan_post(self, index: int, line: Line, *, is_first: bool) -> Post:
        return Post(
            index=index,
            place=self._first_place + index,
            crew=self._crew,
            entrances=self._entrances,
            line=line,
            common=self._common,
            is_first=is_first,
            detail="" if self._legacy is None else "took over",
        )

    def _become_worker(self, post: Post, mask: Iterable[int]) -> NoReturn:
        """Be a worker from here on, and end with it; what the supervisor alone must have is closed."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                # Ctrl-C goes to all processes of a terminal: the supervisor says what is to be done about it.
                signal.signal(number, signal.SIG_DFL if number in _ENDING else signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for worker in self._workers.values():
                worker.line.close()
            self._signals.close()
            self._signalled.close()
            name_process(f"relay-worker-{post.index}")
            if self._size > 1:
                settings = self._config.journal
                journal.configure_journal(settings.format, settings.level, worker=post.index)
            code = _work(self._config, post)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Nothing of the supervisor's is to be undone by us.
            os._exit(code)

    # --- the loop ------------------------------------------------------------------------------------------------

    def _turn_safely(self) -> None:
        try:
            self._turn()
        except Exception as error:  # noqa: BLE001 - all workers end with their supervisor: no defect is worth that
            journal.unexpected_error(self._line, reference="supervisor", exception=error)
            time.sleep(_TICK_SECONDS)

    def _turn(self, *, is_starting: bool = False) -> None:
        """Wait for the next thing to happen, for a second at most, and do what follows from it."""
        lines = {worker.line.fileno(): worker for worker in self._workers.values()}
        signals = self._signals.fileno()
        answers = [] if self._successor is None else [self._successor.answer]
        readable, _, _ = select.select([signals, *answers, *lines], [], [], max(0.0, self._tick_at - time.monotonic()))
        for descriptor in readable:
            if descriptor == signals:
                self._signals.recv(_SIGNALS_READ)
                while self._came:
                    self._heed(signal.Signals(self._came.popleft()))
            elif descriptor in lines:
                self._hear(lines[descriptor])
        for worker in [*self._workers.values()]:
            if has_ended(worker):
                self._bury(worker, is_starting=is_starting)
        self._appoint()
        if time.monotonic() >= self._tick_at:
            self._tick_at = time.monotonic() + self._tick_seconds
            self._look_after()
            if self._notifier.sign_seconds is not None:
                self._notifier.tell("WATCHDOG=1")
        self._start_due()
        self._look_at_successor()

    def _hear(self, worker: Worker) -> None:
        try:
            heard = worker.line.hear()
        except EOFError:
            return
        match heard:
            case (Word.READY, _):
                worker.be_ready()
                self._notifier.tell(self._describe())
                if self._failures.get(worker.index):
                    journal.worker_ready(self._line, worker=worker.index, pid=worker.pid)
            case (Word.FAILED, reason):
                worker.failure = reason.decode("utf-8", "replace")

    def _heed(self, number: signal.Signals) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number == signal.SIGHUP and self._is_on_terminal and not os.isatty(_STDERR):
            # The terminal that it was started on is gone, and with it who would have ended it.
            self._stop()
        elif number == signal.SIGHUP and not self._told:
            self._reload()
        elif number == signal.SIGUSR2 and not self._told:
            self._begin_handover()

    def _appoint(self) -> None:
        """See that one worker leads, as long as there is one."""
        if self._leader is None and not self._told:
            ready = [worker for worker in self._workers.values() if worker.state is State.READY]
            if ready:
                self._leader = min(ready, key=lambda worker: worker.index)
                self._leader.line.say(Word.LEAD)

    def _start_due(self) -> None:
        now = time.monotonic()
        for index in [index for index, at in self._due.items() if at <= now and not self._told]:
            try:
                self._fork(index)
            except OSError as error:
                # No memory, no more processes: as if it had died at once.
                self._plan_again(index, 0, str(error), is_settled=False)
        for worker in self._workers.values():
            if self._end_at is not None and now >= self._end_at:
                os.kill(worker.pid, signal.SIGKILL)

    def _look_after(self) -> None:
        """End who has not moved for too many looks; a machine that was asleep has not looked either."""
        config = self._config
        # Of a store that is locked a worker that starts tells by itself, after as many waits as it may have.
        start_seconds = config.server.start_seconds + _START_WAITS * config.store.lock_wait_seconds
        for worker in self._workers.values():
            seconds = worker.look(self._crew.beats(worker.index)) * self._tick_seconds
            is_ready = worker.state is State.READY
            if seconds < (config.server.hang_seconds if is_ready else start_seconds):
                continue
            worker.idle_ticks = 0
            if is_ready:
                journal.worker_hung(self._line, worker=worker.index, pid=worker.pid, seconds=seconds)
            else:
                journal.worker_not_ready(self._line, worker=worker.index, pid=worker.pid, seconds=seconds)
                worker.failure = f"took no connections {seconds:g} seconds after its start, and was ended"
            os.kill(worker.pid, signal.SIGKILL)

    # --- other settings, another version -------------------------------------------------------------------------

    def _reload(self) -> None:
        """Let everybody go by the settings as they are now, or leave everything as it was."""
        self._notifier.reloading()
        try:
            new = self._load()
        except ConfigError as error:
            journal.settings_unusable(self._line, reason=str(error))
        else:
            # Workers that are forked from now on go by it as well.
            change = self._config.adopt(new)
            for worker in self._workers.values():
                worker.line.say(Word.ADOPT, pickle.dumps(new))
            journal.settings_adopted(self._line, changed=change.now, later=change.later)
        self._notifier.tell("READY=1")

    def _begin_handover(self) -> None:
        if self._successor is not None:
            journal.handover_failed(self._line, reason="a successor is starting already")
        elif os.getpid() == 1:
            # A container ends with its first process, and all others with it.
            journal.handover_failed(
                self._line, reason="the first process of a container cannot leave: start another one"
            )
        else:
            place = 0 if self._first_place else self._size
            try:
                # Where the one before us still has sessions its places are taken: then the successor counts for itself.
                common = self._common if self._common.are_free(place, self._size) else None
                self._successor = Successor(self._entrances, common, place, self._notifier.environ)
            except OSError as error:
                journal.handover_failed(self._line, reason=str(error))
            else:
                journal.handover_begun(self._line, pid=self._successor.pid)

    def _look_at_successor(self) -> None:
        """Leave when the successor takes connections; go on where it cannot."""
        successor = self._successor
        if successor is None or (failure := successor.hear()) is None:
            return
        self._successor = None
        successor.close()
        if failure or self._told:
            successor.end()
            journal.handover_failed(self._line, reason=failure or "this server was told to end meanwhile")
            return
        journal.handover_done(self._line, pid=successor.pid)
        self._notifier.tell(f"MAINPID={successor.pid}")
        self._notifier = Notifier({})
        self._is_succeeded = True
        self._told = True
        self._end_at = (
            time.monotonic() + self._config.server.handover_seconds + self._config.server.drain_seconds + _END_SECONDS
        )
        self._tell_all(Word.LEAVE)

    # --- the end of a worker -------------------------------------------------------------------------------------

    def _bury(self, worker: Worker, *, is_starting: bool) -> None:
        """Know that *worker* has ended, and plan who comes for it."""
        cause = reap(worker)
        worker.line.close()
        del self._workers[worker.index]
        census.bury(self._crew, worker.index)
        self._common.clear(self._first_place + worker.index)
        if self._leader is worker:
            self._leader = None
        if self._told:
            return
        if is_starting:
            raise ConfigError(worker.failure or f"the relay cannot start: a worker {cause}")
        if not cause:
            journal.worker_ended(self._line, worker=worker.index, pid=worker.pid)
            self._due[worker.index] = 0.0
            return
        is_settled = time.monotonic() - worker.started_at > _SETTLED_SECONDS
        self._plan_again(worker.index, worker.pid, worker.failure or cause, is_settled=is_settled)

    def _plan_again(self, index: int, pid: int, cause: str, *, is_settled: bool) -> None:
        """Plan when another worker comes in the place of one that died: later each time, if it does so at its start."""
        self._notifier.tell(self._describe())
        self._crew.deaths += 1
        failures = self._failures[index] = 1 if is_settled else self._failures.get(index, 0) + 1
        wait = 0.0 if failures == 1 else min(_AGAIN_MOST_SECONDS, 2.0 ** min(failures - 2, _DOUBLINGS_MOST))
        self._due[index] = time.monotonic() + wait
        others = sum(other.state is State.READY for other in self._workers.values())
        journal.worker_died(self._line, worker=index, pid=pid, cause=cause, others=others, again_in_seconds=wait)

    # --- the end -------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Let everybody finish; the second time, at once; the third time, without a word."""
        self._stops += 1
        now = time.monotonic()
        if self._stops == 1:
            if not self._told:
                self._notifier.tell("STOPPING=1")
            self._told = True
            for door in self._entrances.doors:
                door.close()
            self._end_at = now + self._config.server.drain_seconds + _END_SECONDS
            self._tell_all(Word.STOP)
        else:
            self._end_at = now + (_END_SOON_SECONDS if self._stops == 2 else 0.0)  # noqa: PLR2004 - the second time
            self._tell_all(Word.NOW)

    def _tell_all(self, word: Word) -> None:
        for worker in self._workers.values():
            worker.line.say(word)


_ENDING = (signal.SIGTERM, signal.SIGCHLD)


def _work(config: Config, post: Post) -> int:
    """Work, and tell the supervisor why, where that cannot be."""
    try:
        work(config, post)
    except Deferred as deferred:
        post.line.say(Word.FAILED, f"{deferred.finding.message_en} ({deferred.code}) {deferred.detail}".encode())
    except (RelayError, OSError) as error:
        post.line.say(Word.FAILED, str(error).encode())
    except Exception as error:  # noqa: BLE001 - the one wrapper around a process
        journal.unexpected_error(journal.new_journal(), reference=f"worker {post.index}", exception=error)
    else:
        return 0
    return 1
