// Cases of franz-go for the Rust harness: a line of JSON in, a line `RESULT {...}` out (tests/harness/runner.rs). Groups are what this client is here for: it has its own
// implementation of both protocols.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const patience = 60 * time.Second

type order struct {
	Case      string `json:"case"`
	Bootstrap string `json:"bootstrap"`
	Name      string `json:"name"`
}

var cases = map[string]func(order) error{
	"group_of_three":                     func(given order) error { return groupOfThree(given, false) },
	"consumer_protocol_group_of_three":   func(given order) error { return groupOfThree(given, true) },
	"commit_and_resume":                  commitAndResume,
	"transactions":                       transactions,
	"a_second_instance_fences_the_first": aSecondInstanceFencesTheFirst,
	"exactly_once_copy":                  exactlyOnceCopy,
}

func main() {
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		var given order
		result := map[string]any{"ok": true}
		if err := run(orders.Bytes(), &given); err != nil {
			result = map[string]any{"ok": false, "error": err.Error()}
		}
		said, _ := json.Marshal(result)
		fmt.Println("RESULT " + string(said))
	}
}

func run(line []byte, given *order) error {
	if err := json.Unmarshal(line, given); err != nil {
		return err
	}
	chosen, known := cases[given.Case]
	if !known {
		return fmt.Errorf("no case %s", given.Case)
	}
	return chosen(*given)
}

// Three members share six partitions; when one leaves the others take over; every record arrives.
func groupOfThree(given order, consumerProtocol bool) error {
	if err := createTopic(given, 6); err != nil {
		return err
	}
	var members []*member
	defer func() {
		for _, member := range members {
			member.leave()
		}
	}()
	for range 3 {
		member, err := join(given, consumerProtocol)
		if err != nil {
			return err
		}
		members = append(members, member)
	}
	if err := until("three members with two partitions each", func() bool { return same(shares(members), 2, 2, 2) }); err != nil {
		return err
	}
	if err := produce(given, "first", 6); err != nil {
		return err
	}
	if err := until("the records of the first round", func() bool { return received(members, "first") == 6 }); err != nil {
		return err
	}
	members[0].leave()
	members = members[1:]
	if err := until("two members with three partitions each", func() bool { return same(shares(members), 3, 3) }); err != nil {
		return err
	}
	if err := produce(given, "second", 6); err != nil {
		return err
	}
	return until("the records of the second round", func() bool { return received(members, "second") == 6 })
}

// What a member committed is where the next one begins.
func commitAndResume(given order) error {
	if err := createTopic(given, 1); err != nil {
		return err
	}
	if err := produce(given, "before", 1); err != nil {
		return err
	}
	for round := range 2 {
		reader, err := join(given, true)
		if err != nil {
			return err
		}
		err = until("the record of this round", func() bool { return received([]*member{reader}, []string{"before", "after"}[round]) == 1 })
		if err == nil && round == 1 && received([]*member{reader}, "before") != 0 {
			err = fmt.Errorf("a record was read again")
		}
		if err == nil {
			err = reader.client.CommitUncommittedOffsets(context.Background())
		}
		reader.leave()
		if err != nil {
			return err
		}
		if round == 0 {
			if err := produce(given, "after", 1); err != nil {
				return err
			}
		}
	}
	return nil
}

// A member of the case's group, polling as an application would.
type member struct {
	client *kgo.Client
	done   chan struct{}
	once   sync.Once

	lock     sync.Mutex
	assigned map[int32]bool
	keys     map[string]bool
}

func join(given order, consumerProtocol bool) (*member, error) {
	joined := &member{done: make(chan struct{}), assigned: map[int32]bool{}, keys: map[string]bool{}}
	change := func(is bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, changed map[string][]int32) {
			joined.lock.Lock()
			defer joined.lock.Unlock()
			for _, partition := range changed[given.Name] {
				if is {
					joined.assigned[partition] = true
				} else {
					delete(joined.assigned, partition)
				}
			}
		}
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(given.Bootstrap),
		kgo.ConsumerGroup(given.Name + "-group"),
		kgo.ConsumeTopics(given.Name),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.HeartbeatInterval(500 * time.Millisecond),
		kgo.OnPartitionsAssigned(change(true)),
		kgo.OnPartitionsRevoked(change(false)),
		kgo.OnPartitionsLost(change(false)),
	}
	if consumerProtocol {
		// The balancer's name is that of the broker's assignor.
		options = append(options, kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer()))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	joined.client = client
	go joined.poll()
	return joined, nil
}

func (joined *member) poll() {
	defer close(joined.done)
	for {
		fetches := joined.client.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		joined.lock.Lock()
		fetches.EachRecord(func(record *kgo.Record) { joined.keys[string(record.Key)] = true })
		joined.lock.Unlock()
	}
}

func (joined *member) leave() {
	joined.once.Do(func() {
		joined.client.Close()
		<-joined.done
	})
}

func shares(members []*member) []int {
	var counts []int
	for _, member := range members {
		member.lock.Lock()
		counts = append(counts, len(member.assigned))
		member.lock.Unlock()
	}
	sort.Ints(counts)
	return counts
}

func same(counts []int, expected ...int) bool {
	return fmt.Sprint(counts) == fmt.Sprint(expected)
}

// How many records of a round have been read by anybody.
func received(members []*member, round string) int {
	keys := map[string]bool{}
	for _, member := range members {
		member.lock.Lock()
		for key := range member.keys {
			if len(key) > len(round) && key[:len(round)] == round {
				keys[key] = true
			}
		}
		member.lock.Unlock()
	}
	return len(keys)
}

func createTopic(given order, partitions int32) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(given.Bootstrap))
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = kadm.NewClient(client).CreateTopic(context.Background(), partitions, 1, nil, given.Name)
	return err
}

// One record to each partition.
func produce(given order, round string, partitions int32) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(given.Bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer client.Close()
	var records []*kgo.Record
	for partition := range partitions {
		records = append(records, &kgo.Record{Topic: given.Name, Partition: partition, Key: fmt.Appendf(nil, "%s-%d", round, partition), Value: []byte("tea")})
	}
	return client.ProduceSync(context.Background(), records...).FirstErr()
}

func until(what string, holds func() bool) error {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if holds() {
			return nil
		}
	}
	return fmt.Errorf("not in time: %s", what)
}
