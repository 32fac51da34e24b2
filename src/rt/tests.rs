//! The runtime as its users see it: real executors on threads, real sockets and files, other processes where a process is what has to die. Bounds on time are wide, since the machines that run
//! these tests are shared; precise figures belong to perf/.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::buffer::AlignedBuffer;
use super::file::{Durability, File, FileErrorCause, OpenMode, Operation};
use super::mesh::{MeshEnd, mesh};
use super::net::{ListenOptions, Listener, SocketOptions, Stream, bind};
use super::sync::{Notify, oneshot};
use super::*;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// What a step may take before the test says that it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

fn nodelay() -> SocketOptions {
    SocketOptions { nodelay: true, ..SocketOptions::default() }
}

/// A task that keeps the shard at 100 % and yields as it should, until the flag is set.
fn keep_busy(stop: Rc<Cell<bool>>) -> Task<()> {
    spawn(async move {
        while !stop.get() {
            let slice = Instant::now();
            while slice.elapsed() < Duration::from_micros(20) {}
            yield_now().await;
        }
    })
}

fn percentile(sorted: &mut [Duration], per_mille: usize) -> Duration {
    sorted.sort();
    sorted[(sorted.len() - 1) * per_mille / 1000]
}

/// Bytes come back in order, in pieces larger than any socket buffer, and the end of the peer's direction shows.
#[test]
fn a_stream_echoes() {
    let listener = bind(ANY_PORT, &ListenOptions::default()).unwrap();
    let address = listener.local_addr().unwrap();
    let client = std::thread::spawn(move || {
        let mut peer = TcpStream::connect(address).unwrap();
        let sent: Vec<u8> = (0..3 << 20).map(|index| (index / 7) as u8).collect();
        let mut writer = peer.try_clone().unwrap();
        let to_send = sent.clone();
        let writing = std::thread::spawn(move || {
            writer.write_all(&to_send).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        writing.join().unwrap();
        assert!(received == sent);
    });
    run(move || async move {
        let listener = Listener::from_std(listener).unwrap();
        let (descriptor, peer) = listener.accept().await.unwrap();
        let stream = Stream::from_fd(descriptor, &nodelay()).unwrap();
        assert_eq!((stream.peer_addr(), stream.local_addr()), (peer, address));
        let mut buffer = BytesMut::new();
        while stream.read(&mut buffer).await.unwrap() > 0 {
            let first = buffer.split_to(buffer.len() / 2).freeze();
            stream.write_all(vec![Bytes::new(), first, buffer.split().freeze()]).await.unwrap();
        }
    });
    client.join().unwrap();
}

/// A port that is taken, and a congestion control that does not exist, are refused with a hint; an accepted connection inherits what the listener was given.
#[test]
fn a_listener_says_what_is_wrong() {
    let taken = bind(ANY_PORT, &ListenOptions::default()).unwrap().local_addr().unwrap();
    let listener = bind(taken, &ListenOptions { congestion: Some("reno".to_string()), ..ListenOptions::default() }).unwrap();
    let refused = bind(taken, &ListenOptions::default()).unwrap_err();
    assert!(
        refused.to_string().starts_with(&format!("cannot bind {taken}: ")) && refused.to_string().contains("Another process"),
        "{refused}"
    );
    let refused = bind(ANY_PORT, &ListenOptions { congestion: Some("none-such".to_string()), ..ListenOptions::default() }).unwrap_err();
    assert!(refused.to_string().contains("tcp_available_congestion_control"), "{refused}");
    run(move || async move {
        let listener = Listener::from_std(listener).unwrap();
        let _near = net::connect(taken).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let name = socket2::SockRef::from(&far).tcp_congestion().unwrap();
        assert!(name.starts_with(b"reno"));
    });
}

/// A read that is given up many times loses no byte and leaves nothing behind in the ring; the connection can then move to another shard.
#[test]
fn a_dropped_read_loses_nothing_and_the_stream_can_move() {
    run(|| async {
        let listener = bind(ANY_PORT, &ListenOptions::default()).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Listener::from_std(listener).unwrap();
        let near = Stream::from_fd(net::connect(address).await.unwrap(), &nodelay()).unwrap();
        let far = Stream::from_fd(listener.accept().await.unwrap().0, &nodelay()).unwrap();
        let mut buffer = BytesMut::new();
        for _ in 0..100 {
            assert!(timeout(Duration::from_micros(300), near.read(&mut buffer)).await.is_err());
        }
        far.write_all(vec![Bytes::from_static(b"hello")]).await.unwrap();
        assert_eq!(near.read(&mut buffer).await.unwrap(), 5);

        assert!(timeout(Duration::from_millis(1), near.read(&mut buffer)).await.is_err(), "a poll is in the ring");
        let moved = Stream::from_fd(near.into_fd().await, &nodelay()).unwrap();
        far.write_all(vec![Bytes::from_static(b" world")]).await.unwrap();
        assert_eq!(moved.read(&mut buffer).await.unwrap(), 6);
        assert_eq!(&buffer[..], b"hello world");

        // The end of a stream reaches its peer although a poll is still in the ring.
        assert!(timeout(Duration::from_millis(1), moved.read(&mut buffer)).await.is_err());
        drop(moved);
        assert_eq!(timeout(PATIENCE, far.read(&mut buffer)).await.unwrap().unwrap(), 0);
    });
}

/// A write's buffer outlives the future that asked: the owner is told of its end only when the kernel has answered, and the bytes are in the file.
#[test]
fn a_dropped_write_keeps_its_buffer_until_the_kernel_is_done() {
    struct Owner(AlignedBuffer, Arc<AtomicBool>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            self.1.store(true, Ordering::SeqCst);
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dropped");
    run(move || async move {
        let file = File::open(&path, OpenMode::CREATE).await.unwrap();
        let freed = Arc::new(AtomicBool::new(false));
        let mut buffer = AlignedBuffer::zeroed(1 << 20);
        buffer.fill(7);
        let data = Bytes::from_owner(Owner(buffer, freed.clone()));
        let mut write = Box::pin(file.write_at(data, 0, Durability::None));
        let first_poll = std::future::poll_fn(|context| std::task::Poll::Ready(write.as_mut().poll(context))).await;
        assert!(first_poll.is_pending(), "not even submitted yet");
        drop(write);
        assert!(!freed.load(Ordering::SeqCst), "the ring has it");
        let begun = Instant::now();
        while !freed.load(Ordering::SeqCst) {
            assert!(begun.elapsed() < PATIENCE);
            yield_now().await;
        }
        let read = file.read_at(2 << 20, 0).await.unwrap();
        assert!(read.len() == 1 << 20 && read.iter().all(|byte| *byte == 7));
    });
}

/// What a durable write put somewhere is read back, direct or not; a read ends where the file does; errors name file and position.
#[test]
fn files_keep_what_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    run(move || async move {
        let file = File::open(&path, OpenMode::CREATE).await.unwrap();
        file.write_at(Bytes::from_static(b"hello"), 8192, Durability::Dsync).await.unwrap();
        assert_eq!(file.length().unwrap(), 8197);
        assert_eq!(&file.read_at(100, 8190).await.unwrap()[..], b"\0\0hello");
        assert!(file.read_at(10, 9000).await.unwrap().is_empty());
        file.sync_data().await.unwrap();
        file.sync_all().await.unwrap();
        assert!(file.is_cached(8192, 5) && file.is_cached(0, 0));
        file.advise_random().unwrap();
        file.read_ahead(0, 4096).await.unwrap();
        file.set_len(4096).await.unwrap();
        file.allocate(4096, 4096).await.unwrap();
        assert_eq!(file.length().unwrap(), 8192);
        sync_everything(&path).await;

        if let Ok(direct) = File::open(&path, OpenMode::READ_WRITE.direct(true)).await {
            let mut block = AlignedBuffer::zeroed(4096);
            block.fill(3);
            direct.write_at(block.freeze(), 4096, Durability::Dsync).await.unwrap();
            let read = direct.read_at(8192, 4096).await.unwrap();
            assert!(read.len() == 4096 && read.iter().all(|byte| *byte == 3));
            let error = direct.write_at(Bytes::from_static(b"odd"), 1, Durability::Dsync).await.unwrap_err();
            assert_eq!((error.operation, error.position, error.cause), (Operation::Write, Some(1), FileErrorCause::Errno(libc::EINVAL)));
            assert_eq!(error.to_string(), format!("cannot write to {} at byte 1: Invalid argument (os error 22)", path.display()));
        }
        let missing = File::open(path.with_extension("missing"), OpenMode::READ).await.unwrap_err();
        assert!(missing.is_not_found());
    });
}

async fn sync_everything(path: &std::path::Path) {
    let directory = path.parent().unwrap().to_path_buf();
    let below = directory.join("a/b");
    file::create_directory(&below).await.unwrap();
    file::rename(&below, directory.join("c")).await.unwrap();
    file::sync_directory(&directory).await.unwrap();
    let space = file::space(&directory).await.unwrap();
    assert!(space.total_bytes > 0 && space.usable_bytes <= space.total_bytes);
    file::remove_directory(directory.join("c")).await.unwrap();
    assert!(file::remove(directory.join("c")).await.unwrap_err().is_not_found());
}

/// Thousands of operations at once, far more than the submission queue holds, all answered.
#[test]
fn more_operations_than_the_ring_has_room_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("many");
    run(move || async move {
        let file = File::open(&path, OpenMode::CREATE).await.unwrap();
        let writes: Vec<_> =
            (0..5000u32)
                .map(|index| {
                    let file = file.clone();
                    spawn(async move {
                        file.write_at(Bytes::copy_from_slice(&index.to_be_bytes()), u64::from(index) * 4, Durability::None).await
                    })
                })
                .collect();
        for write in writes {
            write.await.unwrap();
        }
        let read = file.read_at(20_000, 0).await.unwrap();
        assert!(read.chunks(4).zip(0u32..).all(|(bytes, index)| bytes == index.to_be_bytes()));
    });
}

/// Timers fire in order, not before their time, on an idle shard and on one that is kept busy; a dropped one leaves the wheel.
#[test]
fn timers_hold_on_an_idle_and_on_a_busy_shard() {
    let late = run(|| async {
        let stop = Rc::new(Cell::new(false));
        let mut late = Vec::new();
        for busy in [false, true] {
            let load = busy.then(|| keep_busy(stop.clone()));
            let mut worst = Vec::new();
            for _ in 0..40 {
                let begun = Instant::now();
                sleep(Duration::from_millis(5)).await;
                worst.push(begun.elapsed().checked_sub(Duration::from_millis(5)).expect("not before its time"));
            }
            late.push(percentile(&mut worst, 500));
            stop.set(true);
            if let Some(load) = load {
                load.await;
            }
        }
        drop(sleep(Duration::MAX));
        let mut forever = Box::pin(sleep(Duration::MAX));
        assert!(timeout(Duration::from_millis(1), &mut forever).await.is_err());
        assert_eq!(statistics().timers, 1);
        drop(forever);
        assert_eq!(statistics().timers, 0);
        late
    });
    assert!(late.iter().all(|late| *late < Duration::from_millis(10)), "half of the timers were later than {late:?}");
}

/// A value set by a task while the watcher sleeps is seen at once: local wakes need no doorbell.
#[test]
fn tasks_of_one_shard_wake_each_other() {
    run(|| async {
        let (sender, receiver) = oneshot();
        let notify = Notify::new();
        let rung = notify.notified();
        let waiting = spawn(async move {
            rung.await;
            receiver.await
        });
        sleep(Duration::from_millis(2)).await;
        let begun = Instant::now();
        notify.notify_all();
        sender.send(5).unwrap();
        assert_eq!(waiting.await, Some(5));
        assert!(begun.elapsed() < PATIENCE);
        assert_eq!(current_shard(), ShardId(0));
    });
}

/// Upkeep gets its part beside clients that never rest, and clients get theirs beside upkeep that never rests.
#[test]
fn background_and_clients_share_a_core() {
    run(|| async {
        let stop = Rc::new(Cell::new(false));
        let (upkeep_rounds, client_rounds) = (Rc::new(Cell::new(0u64)), Rc::new(Cell::new(0u64)));
        let spin = |rounds: Rc<Cell<u64>>, stop: Rc<Cell<bool>>| async move {
            while !stop.get() {
                let slice = Instant::now();
                while slice.elapsed() < Duration::from_micros(20) {}
                rounds.set(rounds.get() + 1);
                yield_now().await;
            }
        };
        let upkeep = spawn_background(spin(upkeep_rounds.clone(), stop.clone()));
        let clients = spawn(spin(client_rounds.clone(), stop.clone()));
        let mut late = Vec::new();
        for _ in 0..50 {
            let begun = Instant::now();
            sleep(Duration::from_millis(2)).await;
            late.push(begun.elapsed());
        }
        stop.set(true);
        upkeep.await;
        clients.await;
        let (upkeep, clients) = (upkeep_rounds.get(), client_rounds.get());
        assert!(upkeep > 0 && clients > 4 * upkeep, "upkeep ran {upkeep} slices, clients {clients}");
        assert!(percentile(&mut late, 500) < Duration::from_millis(20));
    });
}

/// Helper threads return values, run side by side, and pass a panic on to the task that waits.
#[test]
fn blocking_calls_run_beside_the_shard() {
    run(|| async {
        let (arrived, ticks) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // Each ends when all of them are under way and the shard has gone on meanwhile.
        let calls: Vec<_> = (0..4)
            .map(|index| {
                let (arrived, ticks) = (arrived.clone(), ticks.clone());
                spawn(blocking(move || {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    let give_up = Instant::now() + Duration::from_secs(60);
                    while arrived.load(Ordering::SeqCst) < 4 || ticks.load(Ordering::SeqCst) < 5 {
                        assert!(Instant::now() < give_up, "four calls run side by side, and the shard goes on");
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    index * 2
                }))
            })
            .collect();
        let ticking = spawn(async move {
            loop {
                sleep(Duration::from_millis(1)).await;
                ticks.fetch_add(1, Ordering::SeqCst);
            }
        });
        let mut sum = 0;
        for call in calls {
            sum += call.await;
        }
        assert_eq!(sum, 12);
        drop(ticking);
        drop(blocking(|| ()));
    });
    let panicked = std::panic::catch_unwind(|| run(|| async { blocking(|| panic!("in the helper")).await }));
    assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "in the helper");
}

/// A panic inside `run` comes out of it.
#[test]
fn run_passes_a_panic_on() {
    let panicked = std::panic::catch_unwind(|| run(|| async { spawn(async { panic!("in a task") }).await }));
    assert!(panicked.is_err());
}

type Ends<M> = Arc<std::sync::Mutex<Vec<Option<MeshEnd<M>>>>>;

fn take_end<M>(ends: &Ends<M>, shard: ShardId) -> Rc<MeshEnd<M>> {
    Rc::new(ends.lock().unwrap()[usize::from(shard.0)].take().unwrap())
}

fn mesh_for<M: Send + 'static>(shards: usize, capacity: usize) -> Ends<M> {
    Arc::new(std::sync::Mutex::new(mesh(shards, capacity).into_iter().map(Some).collect()))
}

/// Two shards on any cores, also on a machine that allows only one.
fn two_cores() -> Vec<usize> {
    let cores = allowed_cores();
    vec![cores[0], cores[cores.len() - 1]]
}

/// Far more messages than the inbox holds arrive all, in order, at a receiver that dawdles; nobody spins and nobody hangs.
#[test]
fn a_mesh_keeps_order_through_a_full_inbox() {
    const MESSAGES: u64 = 20_000;
    let ends = mesh_for::<u64>(2, 16);
    let shards = start(&two_cores(), move |shard| {
        let ends = ends.clone();
        async move {
            let end = take_end(&ends, shard);
            let other = ShardId(1 - shard.0);
            let (done, received) = (Notify::new(), Rc::new(Cell::new(0)));
            let (rings, counts) = (done.clone(), received.clone());
            let finished = done.notified();
            end.on_message(Box::new(move |from, message| {
                assert_eq!((from, message), (other, counts.get()));
                counts.set(message + 1);
                if message + 1 == MESSAGES {
                    rings.notify_all();
                }
            }));
            if shard == ShardId(0) {
                sleep(Duration::from_millis(20)).await;
            }
            for message in 0..MESSAGES {
                end.send(other, message);
            }
            finished.await;
            while end.backlog() > 0 {
                yield_now().await;
            }
            // The other shard may still need its last messages taken over by its own looks.
            sleep(Duration::from_millis(50)).await;
        }
    })
    .unwrap();
    shards.join();
}

/// A hop to a shard that is kept busy, and to one that sleeps, and back.
#[test]
fn a_busy_and_a_sleeping_shard_answer() {
    let ends = mesh_for::<Option<u64>>(2, 64);
    let hops: Arc<std::sync::Mutex<Vec<Duration>>> = Arc::default();
    let results = hops.clone();
    let shards = start(&two_cores(), move |shard| {
        let (ends, results) = (ends.clone(), results.clone());
        async move {
            let end = take_end(&ends, shard);
            if shard == ShardId(1) {
                let (stop, over) = (Rc::new(Cell::new(false)), Notify::new());
                let (stops, rings, echo) = (stop.clone(), over.clone(), end.clone());
                let finished = over.notified();
                end.on_message(Box::new(move |from, message| match message {
                    Some(u64::MAX) => keep_busy(stops.clone()).detach(),
                    Some(number) => echo.send(from, Some(number)),
                    None => {
                        stops.set(true);
                        rings.notify_all();
                    }
                }));
                return finished.await;
            }
            let (arrived, last) = (Notify::new(), Rc::new(Cell::new(u64::MAX)));
            let (rings, sets) = (arrived.clone(), last.clone());
            end.on_message(Box::new(move |_, message| {
                sets.set(message.unwrap());
                rings.notify_all();
            }));
            for round in 0..2 {
                let mut hops = Vec::new();
                for number in 0..200 {
                    let begun = Instant::now();
                    let answered = arrived.notified();
                    end.send(ShardId(1), Some(number));
                    timeout(PATIENCE, answered).await.expect("an answer");
                    assert_eq!(last.get(), number);
                    hops.push(begun.elapsed());
                }
                results.lock().unwrap().push(percentile(&mut hops, 990));
                if round == 0 {
                    end.send(ShardId(1), Some(u64::MAX));
                }
            }
            end.send(ShardId(1), None);
        }
    })
    .unwrap();
    shards.join();
    let hops = hops.lock().unwrap().clone();
    assert!(hops.iter().all(|p99| *p99 < Duration::from_millis(50)), "p99 of a hop to a sleeping and to a busy shard: {hops:?}");
}

/// A durable write beside tasks that keep the shard at 100 % takes what the disk takes, not what the scheduler's tick takes (measured: 6.1 ms without giving way, 0.16 with).
#[test]
fn a_durable_write_is_quick_beside_a_busy_shard() {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = directory.path().join("durable");
    let median = run(move || async move {
        let mode = OpenMode::CREATE;
        File::open(&path, mode).await.unwrap().write_at(Bytes::from(vec![0; 1 << 20]), 0, Durability::Dsync).await.unwrap();
        let file = match File::open(&path, mode.direct(true)).await {
            Ok(file) => file,
            Err(_) => File::open(&path, mode).await.unwrap(),
        };
        let stop = Rc::new(Cell::new(false));
        let busy = keep_busy(stop.clone());
        let mut writes = Vec::new();
        for index in 0..200u64 {
            let begun = Instant::now();
            file.write_at(AlignedBuffer::zeroed(4096).freeze(), index * 4096, Durability::Dsync).await.unwrap();
            writes.push(begun.elapsed());
        }
        stop.set(true);
        busy.await;
        assert!(statistics().gave_way > 0);
        percentile(&mut writes, 500)
    });
    assert!(median < Duration::from_millis(20), "half of the durable writes took more than {median:?}");
}

/// Set in the process that a test starts to be the one which it looks at.
const IS_CHILD: &str = "CORELANE_TEST_IS_CHILD";

fn is_child() -> bool {
    std::env::var_os(IS_CHILD).is_some()
}

/// The test that calls this, once more in a process of its own, which is to end or to be stopped.
fn child_process(test: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("rt::tests::{test}"), "--nocapture"]).env(IS_CHILD, "yes");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn panic_on_a_shard() {
    let shards = start(&two_cores(), |shard| async move {
        if shard == ShardId(1) {
            sleep(Duration::from_millis(5)).await;
            spawn(async { panic!("a broken promise") }).await
        }
        sleep(Duration::MAX).await;
    });
    shards.unwrap().join();
}

/// One shard panics, the other sleeps for ever: the process ends, and its last line says why.
#[test]
fn a_panic_ends_the_process() {
    if is_child() {
        return panic_on_a_shard();
    }
    let output = child_process("a_panic_ends_the_process").wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{complaint}");
    let last_line =
        complaint.lines().rev().find(|line| line.starts_with("corelane: ")).unwrap_or_else(|| panic!("no last line in {complaint}"));
    assert!(last_line.contains("shard-1") && last_line.contains("tests.rs"), "{last_line}");
}

/// Hops, timers and writes without an end; a line now and then says that they go on.
fn work_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("load");
    let ends = mesh_for::<u64>(2, 64);
    let shards = start(&two_cores(), move |shard| {
        let (ends, path) = (ends.clone(), path.clone());
        async move {
            let end = take_end(&ends, shard);
            let (echo, other) = (end.clone(), ShardId(1 - shard.0));
            let hops = Rc::new(Cell::new(0u64));
            let counts = hops.clone();
            end.on_message(Box::new(move |from, number| {
                counts.set(counts.get() + 1);
                echo.send(from, number + 1);
            }));
            end.send(other, 0);
            spawn_background(async {
                loop {
                    yield_now().await;
                    sleep(Duration::from_micros(100)).await;
                }
            })
            .detach();
            let file = File::open(path, OpenMode::CREATE).await.unwrap();
            for round in 0.. {
                file.write_at(Bytes::from_static(&[1; 512]), 0, Durability::Dsync).await.unwrap();
                sleep(Duration::from_millis(1)).await;
                if shard == ShardId(0) && round % 10 == 0 {
                    println!("alive {}", hops.get());
                }
            }
        }
    });
    shards.unwrap().join();
}

/// A process that was stopped for longer than glommio's preempt timer, again and again under load, goes on each time: hops, timers and writes.
#[test]
fn a_stopped_process_goes_on() {
    if is_child() {
        return work_for_ever();
    }
    let mut child = child_process("a_stopped_process_goes_on");
    let process = child.id() as i32;
    let signal = |signal| {
        // SAFETY: the child was started here and has not been waited for.
        assert_eq!(unsafe { libc::kill(process, signal) }, 0);
    };
    let (sender, lines) = std::sync::mpsc::channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    let reading = std::thread::spawn(move || {
        output.lines().map_while(Result::ok).filter(|line| line.starts_with("alive")).for_each(|line| drop(sender.send(line)))
    });
    let goes_on = || -> bool { (0..3).all(|_| lines.recv_timeout(PATIENCE).is_ok()) };
    let mut went_on = goes_on();
    for _ in 0..5 {
        signal(libc::SIGSTOP);
        std::thread::sleep(Duration::from_millis(150));
        lines.try_iter().for_each(drop);
        signal(libc::SIGCONT);
        went_on = went_on && goes_on();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap();
    assert!(went_on, "after a stop the process hung");
}

fn wait_for_a_signal() {
    let termination = signal::Termination::listen().unwrap();
    println!("ready");
    println!("heard {:?}", run(|| termination.wait()));
}

/// The signals that ask for an end arrive as a future, each under its name.
#[test]
fn signals_are_heard() {
    if is_child() {
        return wait_for_a_signal();
    }
    // Whoever runs the tests may ignore the end of a terminal (nohup), and what is started would inherit that. A handler is not inherited.
    signal_hook::flag::register_conditional_default(libc::SIGHUP, Arc::new(AtomicBool::new(true))).unwrap();
    for (signal, name) in [(libc::SIGTERM, "Terminate"), (libc::SIGINT, "Interrupt"), (libc::SIGHUP, "HangUp")] {
        let mut child = child_process("signals_are_heard");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("ready")));
        // SAFETY: the child was started here and has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        assert!(lines.any(|line| line == format!("heard {name}")));
        assert!(child.wait().unwrap().success());
    }
}
