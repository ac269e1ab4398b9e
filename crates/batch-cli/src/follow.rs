//! Holds: following a batch until it ends, or until the person has had enough; its results are delivered meanwhile.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::arguments::Delivery;
use super::interrupts::{Interrupts, Wish};
use super::progress::Progress;
use super::results::{LineHead, OutFile, Seen, Sink};
use super::talk::{Client, ClientError, Detail, LineFault, Patience, Retries, not_understood};
use super::terminal::{BatchError, Terminal, print, sink};
use super::totals::{Sums, Totals};
use crate::outcome::Outcome;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Often enough for a person, rare enough for the server.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The longest result line; a longer one is no result.
const MAX_LINE_BYTES: usize = 256 * 1024 * 1024;

/// Follows a batch to its end and says how it was; also what its check found.
pub(super) async fn follow(
    client: &Client,
    id: &str,
    (delivery, out, progress): (&Delivery, Option<OutFile>, &Progress),
    mut terminal: Terminal<'_>,
) -> Result<(Outcome, Vec<LineFault>), BatchError> {
    let started = Instant::now();
    let sink = sink(delivery, out, &mut *terminal.out)?;
    let ended = Follower::new(client, id, progress, sink).follow(&mut terminal.interrupts).await;
    progress.close();
    match ended {
        Ok(Ended::Finished(detail, totals)) => {
            progress.say(&totals.summary(started.elapsed()));
            if let Some(why) = why_it_ended(totals.ended_early.as_deref()) {
                progress.say(&format!("the batch ended before all its tasks had run: {why}"));
            }
            if let Some(out) = &delivery.out {
                progress.say(&format!("results are in {}", out.display()));
                if delivery.json {
                    print(terminal.out, &format!("{}\n", totals.json(id)))?;
                }
            }
            let outcome = if totals.is_all_completed() { Outcome::Done } else { Outcome::Failed };
            Ok((outcome, detail.faults.unwrap_or_default()))
        }
        Ok(Ended::Detached) => {
            progress.say(&format!("left running; {}", how_to_watch(id, delivery)));
            Ok((Outcome::Failed, Vec::new()))
        }
        // There is no such batch, or it is somebody else's.
        Err(error @ BatchError::Server(ClientError::Refused { .. })) => Err(error),
        Err(error) => {
            progress.say(&format!("the batch goes on at the server; {}", how_to_watch(id, delivery)));
            Err(error)
        }
    }
}

fn how_to_watch(id: &str, delivery: &Delivery) -> String {
    let out = delivery.out.as_ref().map_or_else(String::new, |out| format!(" --out {}", out.display()));
    let force = if delivery.force { " --force" } else { "" };
    let ordered = if delivery.ordered { " --ordered" } else { "" };
    format!("`batchin batch watch {id}{out}{force}{ordered}` follows it")
}

/// Why a batch ended before all its tasks had run, in a person's words.
pub(super) fn why_it_ended(ended_early: Option<&str>) -> Option<String> {
    match ended_early? {
        "max_cost_reached" => Some("the next task could cost more than is left of --max-cost-cents".to_owned()),
        "expired" => Some("its --window is over".to_owned()),
        "cancelled" => Some("it was cancelled".to_owned()),
        other => Some(other.replace('_', " ")),
    }
}

/// How following ended.
#[derive(Debug)]
enum Ended {
    Finished(Box<Detail>, Totals),
    /// The batch goes on at the server.
    Detached,
}

/// One batch that is watched.
pub(super) struct Follower<'a, 'out> {
    client: &'a Client,
    id: &'a str,
    progress: &'a Progress,
    sink: Sink<'out>,
    seen: Seen,
    sums: Sums,
    pause: Duration,
}

impl<'a, 'out> Follower<'a, 'out> {
    pub(super) fn new(client: &'a Client, id: &'a str, progress: &'a Progress, sink: Sink<'out>) -> Self {
        Self { client, id, progress, sink, seen: Seen::default(), sums: Sums::NONE, pause: FIRST_PAUSE }
    }

    /// To the end of the batch.
    async fn follow(mut self, interrupts: &mut Interrupts) -> Result<Ended, BatchError> {
        loop {
            tokio::select! {
                step = self.step() => if let Some(detail) = step? {
                    let totals = Totals::new(&detail, self.sums);
                    self.progress.close();
                    self.sink.finish().map_err(BatchError::Output)?;
                    return Ok(Ended::Finished(Box::new(detail), totals));
                },
                () = interrupts.next() => match interrupts.wish(self.progress).await {
                    Wish::GoOn => {}
                    Wish::Detach => return Ok(Ended::Detached),
                    Wish::Cancel => {
                        tokio::select! {
                            cancelled = self.client.cancel(self.id, self.progress) => { cancelled?; }
                            () = interrupts.next() => return Ok(Ended::Detached),
                        }
                        self.progress.say("cancelled; what is done is delivered");
                    }
                },
            }
        }
    }

    /// The results after a cursor, once.
    pub(super) async fn fetch(mut self, after: Option<u64>) -> Result<(), BatchError> {
        self.seen.begin_after(after);
        self.read().await?;
        self.progress.close();
        self.sink.finish().map_err(BatchError::Output)
    }

    /// One look at the batch. May be dropped anywhere and begun again.
    async fn step(&mut self) -> Result<Option<Detail>, BatchError> {
        let detail = self.client.detail(self.id, self.progress).await?;
        self.progress.update(&Totals::new(&detail, self.sums));
        if detail.ended_tasks() > self.seen.count() {
            self.seen.begin();
            self.read().await?;
            self.progress.update(&Totals::new(&detail, self.sums));
        }
        if detail.has_ended() {
            // Whatever the cursor may have passed over; nothing is delivered twice.
            if self.seen.count() < detail.ended_tasks() {
                self.seen.begin_after(None);
                self.read().await?;
            }
            return Ok(Some(detail));
        }
        tokio::time::sleep(self.pause).await;
        // About a tenth of the time so far, so that the end of a short batch is not noticed half as late again.
        self.pause = (self.pause * 11 / 10).min(LONGEST_PAUSE);
        Ok(None)
    }

    /// Reads from where the last line was, over as many connections as it takes.
    async fn read(&mut self) -> Result<(), BatchError> {
        let mut retries = Retries::new(Patience::Long);
        loop {
            let count = self.seen.count();
            match self.read_once().await? {
                None => return Ok(()),
                Some(error) => {
                    if self.seen.count() > count {
                        retries = Retries::new(Patience::Long);
                    }
                    retries.pause(error, None, self.progress).await?;
                }
            }
        }
    }

    /// The error that broke the connection, if one did.
    async fn read_once(&mut self) -> Result<Option<ClientError>, BatchError> {
        let mut stream = self.client.results(self.id, self.seen.after(), self.progress).await?;
        let mut rest: Vec<u8> = Vec::new();
        loop {
            match stream.next().await {
                Ok(Some(piece)) => self.take(&mut rest, &piece)?,
                Ok(None) => {
                    if !rest.is_empty() {
                        self.take_line(&rest)?;
                    }
                    self.flush()?;
                    return Ok(None);
                }
                Err(error) => {
                    self.flush()?;
                    return Ok(Some(error));
                }
            }
        }
    }

    fn take(&mut self, rest: &mut Vec<u8>, piece: &Bytes) -> Result<(), BatchError> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(end) if rest.is_empty() => self.take_line(end)?,
                Some(end) => {
                    rest.extend_from_slice(end);
                    self.take_line(rest)?;
                    rest.clear();
                }
                None => rest.extend_from_slice(part),
            }
        }
        if rest.len() > MAX_LINE_BYTES {
            return Err(ClientError::NotUnderstood { why: "a line that does not end".to_owned() }.into());
        }
        Ok(())
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), BatchError> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let head: LineHead = serde_json::from_slice(line).map_err(|error| not_understood(&error))?;
        if self.seen.note(&head) {
            self.sums.add(&head);
            self.sink.take(head.index, line).map_err(BatchError::Output)?;
        }
        if self.sink.is_full() { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), BatchError> {
        self.progress.beside(|| self.sink.flush()).map_err(BatchError::Output)
    }
}
