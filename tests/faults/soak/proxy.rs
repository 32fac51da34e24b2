//! A way to the broker that can be cut: bytes go through as they are, until all connections end at once, wherever they were.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

pub struct Proxy {
    address: SocketAddr,
    /// Both ends of every connection since the last cut.
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// Listens until the test's process ends.
    pub fn to(broker: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
        let address = listener.local_addr().expect("bound");
        let open = Arc::new(Mutex::new(Vec::new()));
        let proxy = Proxy { address, open: Arc::clone(&open) };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // No broker there: the client sees its connection end.
                let _refused = connect(client, broker, &open);
            }
        });
        proxy
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections; how many.
    pub fn cut(&self) -> usize {
        let open = std::mem::take(&mut *self.open.lock().expect("nobody panics with it"));
        for stream in &open {
            // One that has ended by itself is cut already.
            let _ended = stream.shutdown(Shutdown::Both);
        }
        open.len() / 2
    }
}

fn connect(client: TcpStream, broker: SocketAddr, open: &Mutex<Vec<TcpStream>>) -> io::Result<()> {
    let server = TcpStream::connect(broker)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    open.lock().expect("nobody panics with it").extend([client.try_clone()?, server.try_clone()?]);
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        thread::spawn(move || pass_on(from, to));
    }
    Ok(())
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 << 10];
    loop {
        let passed = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => to.write_all(&buffer[..length]),
        };
        if passed.is_err() {
            break;
        }
    }
    // The end on one side is the end on both.
    let _ended = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
