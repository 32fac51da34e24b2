//! A record batch. The first byte chooses: whole batches one behind another, or the records of one batch in a codec. Iterator, scanner and decompressor must agree.

#![no_main]

use bytes::Bytes;
use corelane_wire::batch::{
    BatchIterator, Compression, Decompressor, HEADER_BYTES, Progress, RecordIterator, RecordScanner, SLICE_BYTES, decompress_all,
};
use libfuzzer_sys::fuzz_target;

/// A bomb is to be stopped, not to be waited for.
const OUTPUT_BYTES_MAX: usize = 1 << 18;

const COMPRESSIONS: [Compression; 5] = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fuzz_target!(|data: &[u8]| {
    let [mode, rest @ ..] = data else { return };
    match COMPRESSIONS.get(usize::from(*mode % 6)) {
        Some(compression) => {
            let [record_count, records @ ..] = rest else { return };
            read_records(*compression, Bytes::copy_from_slice(records), i32::from(*record_count as i8));
        }
        None => {
            for batch in BatchIterator::new(Bytes::copy_from_slice(rest)) {
                let Ok((header, batch)) = batch else { return };
                let _ = header.check_crc(&batch);
                let Ok(compression) = header.compression() else { continue };
                read_records(compression, batch.slice(HEADER_BYTES..), header.record_count);
            }
        }
    }
});

fn read_records(compression: Compression, input: Bytes, record_count: i32) {
    let whole = decompress_all(compression, input.clone(), OUTPUT_BYTES_MAX);
    let iterated = whole.map(|records| -> Result<i32, ()> {
        let mut count = 0;
        for record in RecordIterator::new(&records, record_count) {
            let record = record.map_err(|_| ())?;
            assert_eq!(record.headers().count(), record.header_count as usize);
            count += 1;
        }
        Ok(count)
    });
    let scanned = scan(compression, input, record_count);
    match iterated {
        Ok(Ok(count)) => assert_eq!(scanned, Some(count)),
        Ok(Err(())) | Err(_) => assert_eq!(scanned, None),
    }
}

fn scan(compression: Compression, input: Bytes, record_count: i32) -> Option<i32> {
    let mut decompressor = Decompressor::new(compression, input, OUTPUT_BYTES_MAX).ok()?;
    let mut scanner = RecordScanner::new(record_count);
    let mut slice = Vec::new();
    loop {
        let progress = decompressor.step(&mut slice).ok()?;
        assert!(slice.len() <= SLICE_BYTES && decompressor.output_bytes() <= OUTPUT_BYTES_MAX);
        scanner.scan(&slice, &mut |_| ()).ok()?;
        if progress == Progress::Done {
            scanner.finish().ok()?;
            return Some(scanner.records_seen());
        }
    }
}
