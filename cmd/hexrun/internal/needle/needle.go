// Package needle makes retrieval questions: facts hidden in a long text, one of which is asked for at its end.
package needle

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"strings"
)

// Question is a text with one fact asked for. The candidates continue the text.
type Question struct {
	Facts        []string // to be hidden, in order of their places; empty if Text holds them
	Text         string   // what stands before the question, without the facts
	Ask          string
	Right, Wrong string
}

// Kinds of questions.
var Kinds = []string{"needle", "multikey"}

const others = 7 // facts beside the right one in a multikey question

var names = strings.Fields(`amber basin cedar delta ember fjord grove heron inlet jetty kiosk lagoon meadow nectar orchard prairie
	quarry ravine summit thicket umbra valley willow xenon yonder zephyr anchor beacon cinder dune eagle falcon`)

// New makes question number n of a kind: always the same for the same number. The right fact is the only one, or one of eight.
func New(kind string, n int) (Question, error) {
	r := rand.New(rand.NewPCG(uint64(n), 0x6865786b76)) // fixed
	facts := 1
	switch kind {
	case "needle":
	case "multikey":
		facts += others
	default:
		return Question{}, fmt.Errorf("%q is no kind of question; use %s", kind, strings.Join(Kinds, " or "))
	}
	keys := r.Perm(len(names))[:facts]
	values := make([]string, facts+1)
	used := map[string]bool{}
	for i := range values {
		for values[i] == "" || used[values[i]] {
			values[i] = fmt.Sprint(1_000_000 + r.IntN(9_000_000))
		}
		used[values[i]] = true
	}
	asked, other := r.IntN(facts), facts // of a single fact, the wrong value is in no text
	if facts > 1 {
		other = (asked + 1 + r.IntN(facts-1)) % facts
	}
	q := Question{
		Text:  "Some special magic numbers are hidden within the following text. Memorize them. You will be asked for one of them afterwards.\n",
		Ask:   ask("number", names[keys[asked]]),
		Right: " " + values[asked] + ".", Wrong: " " + values[other] + ".",
	}
	for i, k := range keys {
		q.Facts = append(q.Facts, fmt.Sprintf(" One of the special magic numbers for %s is: %s.", names[k], values[i]))
	}
	return q, nil
}

func ask(what, key string) string {
	return fmt.Sprintf("\nWhat is the special magic %s for %s mentioned in the provided text? The special magic %s for %s mentioned in the provided text is:",
		what, key, what, key)
}

var fact = regexp.MustCompile(`special magic \w+ for \S+ is: (\S+)\.`)

// Read reads questions in the form of RULER: JSON lines with input and outputs. The wrong answer is that of another fact of the
// text. It stops after limit questions.
func Read(name string, from io.Reader, limit int) ([]Question, error) {
	var all []Question
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 64<<20)
	for n := 1; len(all) < limit && lines.Scan(); n++ {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		var l struct {
			Input   string   `json:"input"`
			Outputs []string `json:"outputs"`
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("%s line %d is no JSON object (%w); use a file of RULER with input and outputs", name, n, err)
		}
		if l.Input == "" || len(l.Outputs) == 0 {
			return nil, fmt.Errorf("%s line %d has no input or outputs; use a file of RULER", name, n)
		}
		var wrong []string
		for _, m := range fact.FindAllStringSubmatch(l.Input, -1) {
			if m[1] != l.Outputs[0] {
				wrong = append(wrong, m[1])
			}
		}
		if len(wrong) == 0 {
			return nil, fmt.Errorf("%s line %d hides no second fact to take a wrong answer from; use a multikey file of RULER", name, n)
		}
		r := rand.New(rand.NewPCG(uint64(n), 0x6865786b76))
		all = append(all, Question{Text: l.Input, Ask: ":", Right: " " + l.Outputs[0] + ".", Wrong: " " + wrong[r.IntN(len(wrong))] + "."})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no question; use a file of RULER: JSON lines with input and outputs", name)
	}
	return all, nil
}
