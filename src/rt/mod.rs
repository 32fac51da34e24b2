//! The runtime of a shard: executor, ring, sockets, files, timers, queues between cores. The only room that names glommio, io_uring or libc, and the only one with unsafe.
