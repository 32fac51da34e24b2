//! One connection on its shard: frames in, answers out in request order, everything bounded.
//!
//! Two halves share the socket. The reading half takes a frame, lets `api` begin it and goes on to the next one only as far as Kafka's order allows: produce requests overlap in
//! their wait for durability, any other request waits until all before it are answered. The writing half sends answers in order, several in one vectored send when they are ready
//! together.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::limits::{FRAME_STEP_BYTES, Limits};
use super::pipeline::Pipeline;
use crate::api::{self, Answer, Begun, CloseReason, ConnectionContext, Response};
use crate::rt::file::{File, FileError};
use crate::rt::stages::{Moment, Stages};
use crate::rt::sync::Permit;
use crate::rt::{self, ShardId, net::Stream};
use crate::shard::Shard;
use crate::wire::{ApiKey, Chunk};

/// Answers that are ready together leave in one send of about this size.
const COALESCED_BYTES: usize = 256 * 1024;

/// What a connection starts with to read into; enough for most requests, small enough for ten thousand idle clients.
const READ_BYTES_MIN: usize = 2 * 1024;

/// What a connection that sends much reads into at a time, so that requests that arrived together cost one read. What it keeps when it falls silent.
const READ_BYTES_MAX: usize = 16 * 1024;

/// What the kernel reads in one piece when it reads ahead is no smaller, as a rule.
const READ_AHEAD_STRETCH_BYTES: usize = 64 * 1024;

/// What the disk is asked for at a time, and what it is left to do at least, while an answer goes through cold parts of a segment.
const READ_AHEAD_BYTES: u64 = 4 * FRAME_STEP_BYTES as u64;
const READ_AHEAD_BYTES_MIN: u64 = 3 * FRAME_STEP_BYTES as u64;

/// A request of no more than this that waits for other clients does so without a part of the memory for requests: they may need it to come in at all.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// Why a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// The client closed it between two frames.
    ByClient,
    /// The client went away within a frame, or the socket failed.
    Broken(io::Error),
    /// The size field of a frame is negative or larger than `socket.request.max.bytes`.
    FrameSize(i32),
    /// A request could not be served and has no error answer.
    Refused(CloseReason),
    /// It did not end: that shard serves it better. Nothing is under way; these bytes were read and belong to the next requests.
    Leaving {
        /// The shard.
        to: ShardId,
        /// The beginning of what is to be read there.
        unread: Bytes,
    },
}

/// What the reaper looks at to end connections that are idle or stuck, and the books of shutdown.
pub struct Activity {
    /// When the last byte came or went.
    pub last: Cell<Instant>,
    /// When the frame that is being read began; absent while the client is not what is waited for.
    pub frame_since: Cell<Option<Instant>>,
    /// Requests under way.
    pub busy: Cell<usize>,
    /// An answer is being sent: the client is waited for, also while it has requests under way.
    pub is_sending: Cell<bool>,
}

/// Serves one client until either side closes or it is better served elsewhere. `unread` comes before what the socket gives.
pub async fn serve(
    shard: Rc<Shard>,
    stream: Rc<Stream>,
    context: Rc<ConnectionContext>,
    limits: Rc<Limits>,
    activity: Rc<Activity>,
    unread: Bytes,
) -> Ended {
    let pipeline = Pipeline::new();
    let failure: Rc<RefCell<Option<Ended>>> = Rc::default();
    let writer = rt::spawn({
        let (stream, pipeline, failure, activity) = (Rc::clone(&stream), Rc::clone(&pipeline), Rc::clone(&failure), Rc::clone(&activity));
        async move {
            if let Err(ended) = write_answers(&stream, &pipeline, &activity).await {
                *failure.borrow_mut() = Some(ended);
                // Wakes the reading half, which may be waiting for the client's next frame.
                let _already_gone = stream.shutdown(Shutdown::Both);
                while let Some((answer, request_bytes)) = pipeline.next().await {
                    drop(answer);
                    pipeline.sent(request_bytes);
                }
            }
        }
    });
    let mut reader = Reader {
        shard: &shard,
        stream: &stream,
        buffer: BytesMut::from(unread),
        last_read: Instant::now(),
        read_bytes: READ_BYTES_MIN,
        limits: &limits,
        activity: &activity,
    };
    let ended = read_requests(&mut reader, &shard, &context, &pipeline, &failure).await;
    pipeline.close();
    // What was asked before the client closed its side is still answered.
    writer.await;
    failure.take().unwrap_or(ended)
}

async fn read_requests(
    reader: &mut Reader<'_>,
    shard: &Rc<Shard>,
    context: &Rc<ConnectionContext>,
    pipeline: &Rc<Pipeline>,
    failure: &RefCell<Option<Ended>>,
) -> Ended {
    loop {
        let Frame { bytes: frame, stages, arriving } = match reader.frame(pipeline).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ended::ByClient,
            Err(ended) => return ended,
        };
        let request_bytes = frame.len();
        // From here on it is not the client that is waited for.
        reader.activity.busy.set(reader.activity.busy.get() + 1);
        // The turn first and the memory then: a client that does not read its answers waits for its turn, and must not hold what others need meanwhile.
        wait_for_turn(pipeline, &frame, request_bytes, reader.limits).await;
        if failure.borrow().is_some() {
            return Ended::ByClient;
        }
        let held = shard.request_memory().acquire(request_bytes).await;
        drop(arriving);
        stages.mark(Moment::Admitted);
        match api::begin(shard, context, frame, stages).await {
            Err(reason) => {
                reader.activity.busy.set(reader.activity.busy.get() - 1);
                return Ended::Refused(reason);
            }
            Ok(Begun::Overlapping(answer)) => {
                let answer = async move {
                    let answer = answer.await;
                    drop(held);
                    answer
                };
                pipeline.push(Box::pin(answer), request_bytes);
            }
            Ok(Begun::Alone(request)) => {
                let held = Some(held).filter(|_| !request.waits_for_others() || request_bytes > WAITING_BYTES_MAX);
                pipeline.drained().await;
                // Boxed: an idle connection does not hold room for the largest of all handlers.
                let answer = Box::pin(request.answer()).await;
                drop(held);
                pipeline.push(Box::pin(std::future::ready(answer)), request_bytes);
            }
        }
        if let Some(to) = context.traffic.better_place(reader.last_read) {
            pipeline.drained().await;
            return Ended::Leaving { to, unread: std::mem::take(&mut reader.buffer).freeze() };
        }
    }
}

/// Produce requests overlap up to the bounds of the connection; any other waits until all before it are answered. `request` begins with its API key.
async fn wait_for_turn(pipeline: &Pipeline, request: &[u8], request_bytes: usize, limits: &Limits) {
    if request.starts_with(&(ApiKey::Produce as i16).to_be_bytes()) {
        pipeline.room(request_bytes, limits).await;
    } else {
        pipeline.drained().await;
    }
}

async fn write_answers(stream: &Stream, pipeline: &Pipeline, activity: &Activity) -> Result<(), Ended> {
    while let Some((answer, request_bytes)) = pipeline.next().await {
        let mut ready = VecDeque::from([(answer.await, request_bytes)]);
        let mut close = None;
        while let Some((answer, request_bytes)) = ready.pop_front() {
            let mut batch = Outgoing::default();
            let mut finished = vec![request_bytes];
            batch.add(answer, &mut close);
            while close.is_none() && batch.bytes < COALESCED_BYTES {
                let Some((answer, request_bytes)) = pipeline.next_if_ready() else { break };
                batch.add(answer, &mut close);
                finished.push(request_bytes);
            }
            activity.is_sending.set(true);
            let sent = send_beside_work(pin!(batch.send(stream)), pipeline).await;
            activity.is_sending.set(false);
            activity.last.set(Instant::now());
            // Also where they did not arrive: the reading half may be waiting until nothing is owed any more.
            for request_bytes in finished {
                activity.busy.set(activity.busy.get() - 1);
                pipeline.sent(request_bytes);
            }
            sent.map_err(Ended::Broken)?;
            if let Some(reason) = close.take() {
                return Err(Ended::Refused(reason));
            }
        }
    }
    Ok(())
}

/// While the client does not read, the requests behind the answer that it is sent come to their ends: they hold memory that others wait for.
async fn send_beside_work(mut send: Pin<&mut impl Future<Output = io::Result<()>>>, pipeline: &Pipeline) -> io::Result<()> {
    let mut work = pin!(pipeline.work_on_owed());
    poll_fn(|context| {
        let sent = send.as_mut().poll(context);
        if sent.is_pending() {
            let _goes_on = work.as_mut().poll(context);
        }
        sent
    })
    .await
}

/// Answers that leave together.
#[derive(Default)]
struct Outgoing {
    responses: Vec<Response>,
    bytes: usize,
}

impl Outgoing {
    fn add(&mut self, answer: Answer, close: &mut Option<CloseReason>) {
        match answer {
            Answer::Nothing => {}
            Answer::Close(reason) => *close = Some(reason),
            Answer::Send(response) => {
                self.bytes += response.chunks.iter().map(Chunk::length).sum::<usize>();
                self.responses.push(response);
            }
        }
    }

    /// One vectored send for what lies in memory, `sendfile` for what lies in segments.
    async fn send(mut self, stream: &Stream) -> io::Result<()> {
        let mut memory: Vec<Bytes> = Vec::new();
        for response in &mut self.responses {
            for chunk in std::mem::take(&mut response.chunks) {
                match chunk {
                    Chunk::Memory(bytes) => memory.push(bytes),
                    Chunk::Deferred(records) => {
                        stream.write_all(std::mem::take(&mut memory)).await?;
                        let range = &response.files[records.token as usize];
                        send_range(stream, &range.file, range.position, records.length as usize).await?;
                    }
                }
            }
        }
        if !memory.is_empty() {
            stream.write_all(memory).await?;
        }
        self.responses.iter().for_each(|response| response.stages.finish());
        Ok(())
    }
}

/// Warm parts of a segment leave by `sendfile`; cold ones are read ahead off this core first, so that the disk never stops the shard. While one is sent the disk reads those after it.
async fn send_range(stream: &Stream, file: &File, position: u64, length: usize) -> io::Result<()> {
    let end = position + length as u64;
    let mut from = position;
    // Up to where the disk was asked for what is to be sent.
    let mut asked = position;
    while from < end {
        let part = (end - from).min(FRAME_STEP_BYTES as u64) as usize;
        let is_cold = !file.is_cached(from, part);
        if (is_cold || asked > from) && asked < end.min(from + READ_AHEAD_BYTES_MIN) {
            let (begin, until) = (asked.max(from), end.min(from + READ_AHEAD_BYTES));
            file.read_ahead(begin, (until - begin) as u32).await.map_err(io::Error::other)?;
            asked = until;
        }
        if is_cold {
            Box::pin(wait_for_pages(file, from, part)).await.map_err(io::Error::other)?;
        }
        stream.send_file(file, from, part).await?;
        from += part as u64;
    }
    Ok(())
}

/// Reading ahead only begins the reads. A byte of each stretch, read through the ring, comes when its page is there, and the shard goes on meanwhile.
async fn wait_for_pages(file: &File, position: u64, length: usize) -> Result<(), FileError> {
    for offset in (0..length).step_by(READ_AHEAD_STRETCH_BYTES).chain([length - 1]) {
        file.read_at(1, position + offset as u64).await?;
    }
    Ok(())
}

/// A whole frame without its size.
struct Frame {
    bytes: Bytes,
    /// From its first byte on.
    stages: Stages,
    /// Room that a large one took while it arrived.
    arriving: Option<Permit>,
}

/// Cuts the byte stream into frames: a big-endian size of four bytes, then so many bytes.
struct Reader<'a> {
    shard: &'a Shard,
    stream: &'a Stream,
    buffer: BytesMut,
    /// When bytes came last: what lies in the buffer between two frames came then, because nothing is read before a whole frame has been cut off.
    last_read: Instant,
    /// Room for the next read.
    read_bytes: usize,
    limits: &'a Limits,
    activity: &'a Activity,
}

impl Reader<'_> {
    /// The next frame; `None` when the client has closed between two frames.
    async fn frame(&mut self, pipeline: &Pipeline) -> Result<Option<Frame>, Ended> {
        // A frame that has begun while the one before it was served has its whole time from now on: until now nobody read it.
        self.activity.frame_since.set((!self.buffer.is_empty()).then(Instant::now));
        if self.buffer.is_empty() {
            // A buffer that once held a large frame is not kept by an idle connection.
            if self.buffer.capacity() > FRAME_STEP_BYTES {
                self.buffer = BytesMut::new();
            }
        }
        while self.buffer.len() < 4 {
            if !self.fill(self.read_bytes).await? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(Ended::Broken(io::ErrorKind::UnexpectedEof.into())) };
            }
        }
        let stages = Stages::begin(self.last_read);
        let size = i32::from_be_bytes(self.buffer[..4].try_into().expect("four bytes"));
        if size < 0 || size as usize > self.limits.frame_bytes_max {
            return Err(Ended::FrameSize(size));
        }
        let total = 4 + size as usize;
        let arriving = if total > FRAME_STEP_BYTES { Some(Box::pin(self.room_for(total, pipeline)).await?) } else { None };
        while self.buffer.len() < total {
            let missing = total - self.buffer.len();
            if !self.fill(missing.min(FRAME_STEP_BYTES.max(self.buffer.len()))).await? {
                return Err(Ended::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        let mut frame = self.buffer.split_to(total);
        self.activity.frame_since.set(None);
        stages.mark(Moment::FrameRead);
        Ok(Some(Frame { bytes: frame.split_off(4).freeze(), stages, arriving }))
    }

    /// Waits for its turn and for room before more than a step of a large frame is read. The client's time for it goes on when it has both.
    async fn room_for(&mut self, frame_bytes: usize, pipeline: &Pipeline) -> Result<Permit, Ended> {
        while self.buffer.len() < 4 + size_of::<i16>() {
            if !self.fill(self.read_bytes).await? {
                return Err(Ended::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        self.activity.frame_since.set(None);
        self.activity.busy.set(self.activity.busy.get() + 1);
        wait_for_turn(pipeline, &self.buffer[4..], frame_bytes, self.limits).await;
        let permit = self.shard.arriving_memory().acquire(frame_bytes).await;
        self.activity.busy.set(self.activity.busy.get() - 1);
        self.activity.frame_since.set(Some(Instant::now()));
        self.activity.last.set(Instant::now());
        Ok(permit)
    }

    /// Reads what is there, with room for at least `bytes`; false at the end of the stream.
    async fn fill(&mut self, bytes: usize) -> Result<bool, Ended> {
        self.buffer.reserve(bytes);
        let room = self.buffer.capacity() - self.buffer.len();
        let count = self.stream.read(&mut self.buffer).await.map_err(Ended::Broken)?;
        self.read_bytes = next_read_bytes(self.read_bytes, count, room);
        let now = Instant::now();
        self.last_read = now;
        self.activity.last.set(now);
        if count > 0 && self.activity.frame_since.get().is_none() {
            self.activity.frame_since.set(Some(now));
        }
        Ok(count > 0)
    }
}

/// Twice as much after a read that was filled to the last byte, half as much after one that left most of its room.
fn next_read_bytes(read_bytes: usize, count: usize, room: usize) -> usize {
    match count {
        count if count == room => (read_bytes * 2).min(READ_BYTES_MAX),
        count if count < read_bytes / 4 => (read_bytes / 2).max(READ_BYTES_MIN),
        _ => read_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grow_with_what_comes_and_shrink_again() {
        let mut read_bytes = READ_BYTES_MIN;
        for _ in 0..10 {
            read_bytes = next_read_bytes(read_bytes, read_bytes, read_bytes);
        }
        assert_eq!(read_bytes, READ_BYTES_MAX);
        assert_eq!(next_read_bytes(read_bytes, read_bytes / 2, read_bytes), READ_BYTES_MAX);
        for _ in 0..10 {
            read_bytes = next_read_bytes(read_bytes, 100, read_bytes);
        }
        assert_eq!(read_bytes, READ_BYTES_MIN);
    }
}
