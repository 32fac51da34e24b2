// What KafkaJS does in its main job; each export is a case, on a topic that no other case uses.
'use strict';

const assert = require('node:assert');
const { CompressionTypes, ConfigResourceTypes } = require('kafkajs');

const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
};

// Compressible and incompressible values from one byte to some KiB.
function records(count) {
  return Array.from({ length: count }, (_, index) => {
    const noise = Buffer.from(Array.from({ length: (index % 5) * 50 }, (_, position) => (index * 131 + position * 197 + position * position * 7) % 256));
    return {
      key: Buffer.from(`key-${index}`),
      value: Buffer.concat([Buffer.from(`record ${index} `.repeat((index % 7) * 40 + 1)), noise]),
      headers: { index: Buffer.from(`${index}`) },
    };
  });
}

async function withAdmin(kafka, work) {
  const admin = kafka.admin();
  await admin.connect();
  try {
    return await work(admin);
  } finally {
    await admin.disconnect();
  }
}

const create = (kafka, topic, numPartitions = 1, configs = {}) =>
  withAdmin(kafka, (admin) =>
    admin.createTopics({
      waitForLeaders: true,
      topics: [{ topic, numPartitions, configEntries: Object.entries(configs).map(([name, value]) => ({ name, value })) }],
    }));

async function produce(kafka, topic, messages, { codec = 'none', acks = -1, partition = 0, idempotent = false } = {}) {
  const producer = kafka.producer({ idempotent, allowAutoTopicCreation: true });
  await producer.connect();
  try {
    const placed = messages.map((message) => ({ ...message, partition }));
    return await producer.send({ topic, acks, compression: CODECS[codec], messages: placed });
  } finally {
    await producer.disconnect();
  }
}

const FAST_GROUP = { sessionTimeout: 10000, heartbeatInterval: 500, rebalanceTimeout: 20000, metadataMaxAge: 1000, maxBytesPerPartition: 4 << 20 };

// A member of a group; `seen` collects what it reads, `assigned` follows its partitions.
async function member(kafka, groupId, topic, options = {}) {
  const consumer = kafka.consumer({ groupId, ...FAST_GROUP });
  const running = { consumer, seen: [], assigned: [] };
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    running.assigned = payload.memberAssignment[topic] || [];
  });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => running.seen.push({ partition, ...message }),
    ...options,
  });
  return running;
}

async function read(kafka, topic, count) {
  const running = await member(kafka, `${topic}-reader-${Math.random()}`, topic);
  try {
    await until(`${count} records`, () => running.seen.length >= count);
    return running.seen;
  } finally {
    await running.consumer.disconnect();
  }
}

async function until(what, look) {
  const end = Date.now() + 60000;
  while (!(await look())) {
    assert.ok(Date.now() < end, `waited a minute for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function same(got, expected) {
  assert.strictEqual(got.length, expected.length, 'records');
  got.forEach((record, position) => {
    assert.deepStrictEqual(record.key, expected[position].key, `key ${position}`);
    assert.deepStrictEqual(record.value, expected[position].value, `value ${position}`);
    assert.deepStrictEqual(record.headers, expected[position].headers, `headers ${position}`);
  });
}

// What is written over three partitions is read from each in order, with offsets that count from 0.
const roundTrip = (codec) => async (kafka, topic) => {
  await create(kafka, topic, 3);
  const sent = records(60);
  for (const partition of [0, 1, 2]) {
    await produce(kafka, topic, sent, { codec, partition });
  }
  const got = await read(kafka, topic, 180);
  for (const partition of [0, 1, 2]) {
    const own = got.filter((record) => record.partition === partition);
    same(own, sent);
    own.forEach((record, position) => assert.strictEqual(record.offset, `${position}`));
  }
};

for (const codec of Object.keys(CODECS)) {
  exports[`codec_${codec}`] = roundTrip(codec);
}

// A missing key or value stays missing, an empty one stays empty.
exports.tombstones_and_empty_values = async (kafka, topic) => {
  await create(kafka, topic);
  const empty = Buffer.alloc(0);
  const sent = [
    { key: Buffer.from('tombstone'), value: null },
    { key: Buffer.from('empty value'), value: empty },
    { key: empty, value: Buffer.from('empty key') },
    { key: null, value: Buffer.from('no key') },
    { key: empty, value: empty },
  ].map((record) => ({ ...record, headers: {} }));
  await produce(kafka, topic, sent);
  same(await read(kafka, topic, sent.length), sent);
};

// Headers come back with repeated keys and empty values.
exports.headers = async (kafka, topic) => {
  await create(kafka, topic);
  const headers = { a: [Buffer.from('1'), Buffer.from('2')], empty: Buffer.alloc(0), größe: Buffer.from([0, 127, 255]) };
  const sent = [{ key: Buffer.from('k'), value: Buffer.from('v'), headers }];
  await produce(kafka, topic, sent, { codec: 'gzip' });
  same(await read(kafka, topic, 1), sent);
};

// Values of 1 MiB pass where the topic allows them, compressed or not, between small ones.
exports.one_mib_records = async (kafka, topic) => {
  await create(kafka, topic, 1, { 'max.message.bytes': '4194304' });
  const large = Buffer.from(Array.from({ length: 1 << 20 }, (_, position) => (position * 7919) % 251));
  const sent = ['before', large, 'between', large, 'after'].map((value) => ({ key: Buffer.from('k'), value: Buffer.from(value), headers: {} }));
  await produce(kafka, topic, sent);
  await produce(kafka, topic, sent, { codec: 'lz4' });
  same(await read(kafka, topic, 10), [...sent, ...sent]);
};

// A record above max.message.bytes is refused by name.
exports.record_too_large = async (kafka, topic) => {
  await create(kafka, topic, 1, { 'max.message.bytes': '1000' });
  await assert.rejects(produce(kafka, topic, [{ value: Buffer.alloc(5000) }]), { type: 'MESSAGE_TOO_LARGE' });
};

// Records sent with acks 0, 1 and all are there.
exports.acks_of_every_kind = async (kafka, topic) => {
  await create(kafka, topic);
  const sent = records(12);
  await produce(kafka, topic, sent.slice(0, 4), { acks: 0 });
  await until('records sent with acks=0', () => withAdmin(kafka, async (admin) => (await admin.fetchTopicOffsets(topic))[0].high === '4'));
  await produce(kafka, topic, sent.slice(4, 8), { acks: 1 });
  await produce(kafka, topic, sent.slice(8), { acks: -1 });
  same(await read(kafka, topic, 12), sent);
};

// An idempotent producer's records arrive once and in order.
exports.idempotent_producer = async (kafka, topic) => {
  await create(kafka, topic);
  const sent = records(200);
  await produce(kafka, topic, sent, { idempotent: true });
  same(await read(kafka, topic, sent.length), sent);
};

// Producing to a topic that does not exist makes it.
exports.topic_made_by_its_first_use = async (kafka, topic) => {
  await produce(kafka, topic, records(3));
  same(await read(kafka, topic, 3), records(3));
};

// A reader that seeks into a compressed batch begins exactly there.
exports.reading_from_the_past = async (kafka, topic) => {
  await create(kafka, topic);
  const sent = records(50);
  await produce(kafka, topic, sent, { codec: 'lz4' });
  const running = await member(kafka, `${topic}-group`, topic);
  try {
    await until('all records', () => running.seen.length === 50);
    running.consumer.seek({ topic, partition: 0, offset: '17' });
    await until('the second half', () => running.seen.length === 83);
    same(running.seen.slice(50), sent.slice(17));
  } finally {
    await running.consumer.disconnect();
  }
};

// The offset for a time is that of the first record at or after it.
exports.timestamps_lookup = async (kafka, topic) => {
  await create(kafka, topic);
  const base = Date.now() - 100000;
  const sent = Array.from({ length: 20 }, (_, index) => ({ value: Buffer.from('v'), timestamp: `${base + index * 1000}` }));
  await produce(kafka, topic, sent.slice(0, 10));
  await produce(kafka, topic, sent.slice(10), { codec: 'gzip' });
  await withAdmin(kafka, async (admin) => {
    for (const [after, offset] of [[-1, 0], [0, 0], [1, 1], [4000, 4], [12500, 13], [19000, 19]]) {
      const [found] = await admin.fetchTopicOffsetsByTimestamp(topic, base + after);
      assert.strictEqual(found.offset, `${offset}`, `offset for ${after}`);
    }
  });
};

// Three members share six partitions; when one leaves the others take over; every record arrives.
exports.group_of_three = async (kafka, topic) => {
  await create(kafka, topic, 6);
  const members = [];
  try {
    for (let index = 0; index < 3; index += 1) {
      members.push(await member(kafka, `${topic}-group`, topic));
    }
    const shares = () => members.map((running) => running.assigned.length).sort().join();
    const keys = () => new Set(members.flatMap((running) => running.seen.map((record) => record.key.toString())));
    const everywhere = async (round) => {
      for (let partition = 0; partition < 6; partition += 1) {
        await produce(kafka, topic, [{ key: `${round}-${partition}`, value: 'v' }], { partition });
      }
    };
    const arrived = (round) => [0, 1, 2, 3, 4, 5].every((partition) => keys().has(`${round}-${partition}`));
    await until('three members with two partitions each', () => shares() === '2,2,2');
    await everywhere('first');
    await until('the first round', () => arrived('first'));
    await members.shift().consumer.disconnect();
    await until('two members with three partitions each', () => shares() === '3,3');
    await everywhere('second');
    await until('the second round', () => arrived('second'));
  } finally {
    await Promise.all(members.map((running) => running.consumer.disconnect()));
  }
};

// What a member committed is where the next one begins.
exports.commit_and_resume = async (kafka, topic) => {
  await create(kafka, topic);
  const sent = records(30);
  await produce(kafka, topic, sent);
  const groupId = `${topic}-group`;
  const first = await member(kafka, groupId, topic);
  await until('records for the first member', () => first.seen.length === 30);
  await first.consumer.commitOffsets([{ topic, partition: 0, offset: '12' }]);
  await first.consumer.disconnect();
  await withAdmin(kafka, async (admin) => {
    const [found] = await admin.fetchOffsets({ groupId, topics: [topic] });
    assert.strictEqual(found.partitions[0].offset, '12');
  });
  const second = await member(kafka, groupId, topic);
  await until('records for the second member', () => second.seen.length === 18);
  await second.consumer.disconnect();
  same(second.seen, sent.slice(12));
};

// Topics are made, described, enlarged and deleted; what cannot be is refused by name.
exports.admin_topics = async (kafka, topic) => {
  await create(kafka, topic, 2);
  await withAdmin(kafka, async (admin) => {
    const partitions = async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length;
    assert.strictEqual(await partitions(), 2);
    assert.ok((await admin.listTopics()).includes(topic));
    assert.strictEqual(await admin.createTopics({ topics: [{ topic }] }), false, 'a topic that exists');
    const typeOf = (type) => (error) => error.errors[0].type === type;
    await assert.rejects(admin.createTopics({ topics: [{ topic: 'no spaces' }] }), typeOf('INVALID_TOPIC_EXCEPTION'));
    await assert.rejects(admin.createTopics({ topics: [{ topic: `${topic}-r`, replicationFactor: 3 }] }), typeOf('INVALID_REPLICATION_FACTOR'));
    await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] });
    await until('five partitions', async () => (await partitions()) === 5);
    await admin.deleteTopics({ topics: [topic] });
    await until('the topic to be gone', async () => !(await admin.listTopics()).includes(topic));
  });
};

// Settings of a topic: defaults and changes. KafkaJS knows only AlterConfigs, which resets what it does not name.
exports.admin_configs = async (kafka, topic, expected) => {
  await create(kafka, topic, 1, { 'retention.ms': '86400000' });
  await withAdmin(kafka, async (admin) => {
    const resource = { type: ConfigResourceTypes.TOPIC, name: topic };
    const value = async (name) => (await admin.describeConfigs({ includeSynonyms: true, resources: [resource] })).resources[0].configEntries
      .find((entry) => entry.configName === name).configValue;
    assert.strictEqual(await value('retention.ms'), '86400000');
    assert.strictEqual(await value('flush.messages'), expected['flush-messages-default']);
    await admin.alterConfigs({ resources: [{ ...resource, configEntries: [{ name: 'segment.bytes', value: '16777216' }] }] });
    await until('the change', async () => (await value('segment.bytes')) === '16777216');
    assert.strictEqual(await value('retention.ms'), '604800000');
  });
};

// A group is listed and described while it lives, and can be moved and deleted once empty.
exports.admin_groups = async (kafka, topic) => {
  await create(kafka, topic);
  await produce(kafka, topic, records(10));
  const groupId = `${topic}-group`;
  await withAdmin(kafka, async (admin) => {
    const state = async () => (await admin.describeGroups([groupId])).groups[0].state;
    const running = await member(kafka, groupId, topic);
    await until('the records', () => running.seen.length === 10);
    await until('a stable group', async () => (await state()) === 'Stable');
    assert.ok((await admin.listGroups()).groups.some((listed) => listed.groupId === groupId));
    await running.consumer.disconnect();
    await until('an empty group', async () => (await state()) === 'Empty');
    await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '7' }] });
    assert.strictEqual((await admin.fetchOffsets({ groupId, topics: [topic] }))[0].partitions[0].offset, '7');
    await until('an empty group', async () => (await state()) === 'Empty');
    await admin.deleteGroups([groupId]);
    await until('the group to be gone', async () => !(await admin.listGroups()).groups.some((listed) => listed.groupId === groupId));
  });
};

// Records below an offset are given up; the log begins there.
exports.delete_records = async (kafka, topic) => {
  await create(kafka, topic);
  await produce(kafka, topic, records(20));
  await withAdmin(kafka, async (admin) => {
    // KafkaJS looks for the leader only among topics that it was asked about before.
    assert.strictEqual((await admin.fetchTopicOffsets(topic))[0].high, '20');
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '8' }] });
    assert.strictEqual((await admin.fetchTopicOffsets(topic))[0].low, '8');
  });
  same(await read(kafka, topic, 12), records(20).slice(8));
};

// The cluster names itself, its one broker and its controller.
exports.describe_cluster = async (kafka) => {
  await withAdmin(kafka, async (admin) => {
    const described = await admin.describeCluster();
    assert.ok(described.clusterId);
    assert.strictEqual(described.brokers.length, 1);
    assert.strictEqual(described.controller, described.brokers[0].nodeId);
  });
};

// Readers get what was committed, in order, and nothing of what was aborted.
exports.transactions = async (kafka, topic) => {
  await create(kafka, topic);
  const committed = [];
  await withTransactional(kafka, topic, async (producer) => {
    for (let round = 0; round < 6; round += 1) {
      const written = records(5).map((record) => ({ ...record, key: Buffer.from(`${round}-${record.key}`), partition: 0 }));
      const transaction = await producer.transaction();
      await transaction.send({ topic, messages: written });
      if (round % 2 === 0) {
        await transaction.commit();
        committed.push(...written);
      } else {
        await transaction.abort();
      }
    }
  });
  const got = await read(kafka, topic, committed.length);
  same(got, committed);
};

// Who takes over a transactional id ends the other's transaction, and the other is told so.
exports.a_second_instance_fences_the_first = async (kafka, topic) => {
  await create(kafka, topic);
  await withTransactional(kafka, topic, async (first) => {
    const left = await first.transaction();
    await left.send({ topic, messages: [{ key: 'k', value: 'of the first' }] });
    await withTransactional(kafka, topic, async (second) => {
      const taken = await second.transaction();
      await taken.send({ topic, messages: [{ key: 'k', value: 'of the second' }] });
      await taken.commit();
    });
    await assert.rejects(left.commit(), (error) => ['INVALID_PRODUCER_EPOCH', 'PRODUCER_FENCED'].includes(error.type));
  });
  const got = await read(kafka, topic, 1);
  assert.deepStrictEqual(got.map((record) => record.value.toString()), ['of the second']);
};

// Read, write and commit the positions in one transaction; every other one is given up. The copy holds each record once.
exports.exactly_once_copy = async (kafka, topic) => {
  const copy = `${topic}-copy`;
  const groupId = `${topic}-group`;
  await create(kafka, topic);
  await create(kafka, copy);
  const sent = records(40);
  await produce(kafka, topic, sent);
  let copied = 0;
  let attempt = 0;
  while (copied < sent.length) {
    assert.ok(attempt < 40, `${copied} records copied`);
    attempt += 1;
    const given_up = attempt % 2 === 1;
    await withTransactional(kafka, topic, async (producer) => {
      let ended = false;
      const running = await member(kafka, groupId, topic, {
        eachMessage: undefined,
        eachBatch: async ({ batch }) => {
          if (ended) {
            return;
          }
          const taken = batch.messages.slice(0, 25);
          const transaction = await producer.transaction();
          let early = false;
          try {
            await transaction.send({ topic: copy, messages: taken.map(({ key, value }) => ({ key, value })) });
            const offset = `${BigInt(taken[taken.length - 1].offset) + 1n}`;
            await transaction.sendOffsets({ consumerGroupId: groupId, topics: [{ topic, partitions: [{ partition: 0, offset }] }] });
          } catch (error) {
            // A broker that has only just begun does not know its newest partitions everywhere.
            assert.ok(error.retriable, error);
            early = true;
          }
          if (given_up || early) {
            await transaction.abort();
          } else {
            await transaction.commit();
            copied += taken.length;
          }
          ended = true;
        },
      });
      try {
        await until('the end of the transaction', () => ended);
      } finally {
        await running.consumer.disconnect();
      }
    });
  }
  const got = await read(kafka, copy, sent.length);
  assert.deepStrictEqual(got.map((record) => record.key.toString()), sent.map((record) => record.key.toString()));
  await withAdmin(kafka, async (admin) => {
    const [found] = await admin.fetchOffsets({ groupId, topics: [topic] });
    assert.strictEqual(found.partitions[0].offset, '40');
  });
};

async function withTransactional(kafka, name, work) {
  const producer = kafka.producer({ transactionalId: `${name}-id`, maxInFlightRequests: 1, idempotent: true });
  await producer.connect();
  try {
    await work(producer);
  } finally {
    await producer.disconnect();
  }
}
