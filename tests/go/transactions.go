package main

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Readers of committed records get what was committed, in order, and nothing of what was aborted.
func transactions(given order) error {
	if err := createTopic(given, 2); err != nil {
		return err
	}
	producer, err := transactional(given, "id")
	if err != nil {
		return err
	}
	defer producer.Close()
	var committed [2][]string
	for round := range 8 {
		isCommit := round%2 == 0
		if err := producer.BeginTransaction(); err != nil {
			return err
		}
		for index := range 6 {
			key := fmt.Sprintf("%d-%d", round, index)
			sent := &kgo.Record{Topic: given.Name, Partition: int32(index % 2), Key: []byte(key), Value: make([]byte, index*50)}
			if err := producer.ProduceSync(context.Background(), sent).FirstErr(); err != nil {
				return err
			}
			if isCommit {
				committed[index%2] = append(committed[index%2], key)
			}
		}
		if err := producer.EndTransaction(context.Background(), kgo.TransactionEndTry(isCommit)); err != nil {
			return err
		}
	}
	for partition := range int32(2) {
		if err := committedKeys(given, given.Name, partition, committed[partition]); err != nil {
			return err
		}
	}
	return nil
}

// Who takes over a transactional id ends the other's transaction, and the other is told so.
func aSecondInstanceFencesTheFirst(given order) error {
	if err := createTopic(given, 1); err != nil {
		return err
	}
	var instances []*kgo.Client
	for _, name := range []string{"first", "second"} {
		instance, err := transactional(given, "id")
		if err != nil {
			return err
		}
		defer instance.Close()
		instances = append(instances, instance)
		if err := instance.BeginTransaction(); err != nil {
			return err
		}
		if err := instance.ProduceSync(context.Background(), &kgo.Record{Topic: given.Name, Key: []byte(name)}).FirstErr(); err != nil {
			return err
		}
	}
	err := instances[0].EndTransaction(context.Background(), kgo.TryCommit)
	if !errors.Is(err, kerr.ProducerFenced) && !errors.Is(err, kerr.InvalidProducerEpoch) {
		return fmt.Errorf("the first instance was told %v", err)
	}
	if err := instances[1].EndTransaction(context.Background(), kgo.TryCommit); err != nil {
		return err
	}
	return committedKeys(given, given.Name, 0, []string{"second"})
}

// Read, write and commit the positions in one transaction; every other one is given up. The copy holds each record once.
func exactlyOnceCopy(given order) error {
	if err := createTopic(given, 2); err != nil {
		return err
	}
	target := given
	target.Name = given.Name + "-copy"
	if err := createTopic(target, 1); err != nil {
		return err
	}
	var expected []string
	for round := range 20 {
		name := fmt.Sprintf("%02d", round)
		if err := produce(given, name, 2); err != nil {
			return err
		}
		expected = append(expected, name+"-0", name+"-1")
	}
	session, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(given.Bootstrap),
		kgo.TransactionalID(given.Name+"-copier"),
		kgo.ConsumerGroup(given.Name+"-group"),
		kgo.ConsumeTopics(given.Name),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(),
		kgo.HeartbeatInterval(500*time.Millisecond),
	)
	if err != nil {
		return err
	}
	defer session.Close()
	end := time.Now().Add(patience)
	for copied, attempt := 0, 0; copied < len(expected); attempt++ {
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d records copied", copied, len(expected))
		}
		fetches := session.PollRecords(context.Background(), 7)
		if err := fetches.Err(); err != nil {
			return err
		}
		if fetches.NumRecords() == 0 {
			continue
		}
		if err := session.Begin(); err != nil {
			return err
		}
		promise := kgo.AbortingFirstErrPromise(session.Client())
		fetches.EachRecord(func(record *kgo.Record) {
			session.Produce(context.Background(), &kgo.Record{Topic: target.Name, Key: record.Key, Value: record.Value}, promise.Promise())
		})
		if err := promise.Err(); err != nil {
			return err
		}
		committed, err := session.End(context.Background(), kgo.TransactionEndTry(attempt%2 == 1))
		if err != nil {
			return err
		}
		if committed {
			copied += fetches.NumRecords()
		}
	}
	found, err := readCommitted(given, target.Name, 0, len(expected))
	if err != nil {
		return err
	}
	sort.Strings(found)
	if strings.Join(found, " ") != strings.Join(expected, " ") {
		return fmt.Errorf("the copy holds %v", found)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(given.Bootstrap))
	if err != nil {
		return err
	}
	defer client.Close()
	offsets, err := kadm.NewClient(client).FetchOffsets(context.Background(), given.Name+"-group")
	if err != nil {
		return err
	}
	var sum int64
	offsets.Each(func(offset kadm.OffsetResponse) { sum += offset.At })
	if sum != int64(len(expected)) {
		return fmt.Errorf("the committed positions add up to %d", sum)
	}
	return nil
}

func transactional(given order, name string) (*kgo.Client, error) {
	return kgo.NewClient(
		kgo.SeedBrokers(given.Bootstrap),
		kgo.TransactionalID(given.Name+"-"+name),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
}

func committedKeys(given order, topic string, partition int32, expected []string) error {
	found, err := readCommitted(given, topic, partition, len(expected))
	if err != nil {
		return err
	}
	if strings.Join(found, " ") != strings.Join(expected, " ") {
		return fmt.Errorf("partition %d holds %v, not %v", partition, found, expected)
	}
	return nil
}

// The keys of so many committed records, and of what comes right behind them.
func readCommitted(given order, topic string, partition int32, count int) ([]string, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(given.Bootstrap),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var keys []string
	poll := func(limit time.Duration) {
		polling, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		client.PollFetches(polling).EachRecord(func(record *kgo.Record) { keys = append(keys, string(record.Key)) })
	}
	for end := time.Now().Add(patience); len(keys) < count && time.Now().Before(end); {
		poll(time.Second)
	}
	poll(300 * time.Millisecond)
	return keys, nil
}
