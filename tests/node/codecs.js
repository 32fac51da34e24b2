// The codecs that KafkaJS leaves to others.
'use strict';

const { CompressionCodecs, CompressionTypes } = require('kafkajs');
const SnappyCodec = require('kafkajs-snappy');
const lz4 = require('lz4-napi');
const { ZstdCodec } = require('zstd-codec');

const zstd = new Promise((resolve) => ZstdCodec.run((library) => resolve(new library.Streaming())));

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec;
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => Buffer.from(await lz4.compressFrame(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(await lz4.decompressFrame(buffer)),
});
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from((await zstd).compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from((await zstd).decompress(buffer)),
});
