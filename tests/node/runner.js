// Runs cases on KafkaJS for the Rust harness: a line of JSON in, a line `RESULT {...}` out (tests/harness/runner.rs).
'use strict';

const readline = require('node:readline');
const { Kafka, logLevel } = require('kafkajs');
const cases = require('./cases');
require('./codecs');

async function run(order) {
  const toLog = () => ({ namespace, log }) => process.stderr.write(`${namespace} ${JSON.stringify(log)}\n`);
  const kafka = new Kafka({ clientId: 'kafkajs', brokers: [order.bootstrap], logLevel: logLevel.WARN, logCreator: toLog });
  try {
    await cases[order.case](kafka, order.name, order.expected);
    return { ok: true };
  } catch (error) {
    return { ok: false, error: `${error.stack} ${error.errors ? JSON.stringify(error.errors) : ''}` };
  }
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    process.stderr.write(`case ${order.case}\n`);
    process.stdout.write(`RESULT ${JSON.stringify(await run(order))}\n`);
  }
  process.exit(0);
}

main();
