package harness

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"
)

// Samples returns records as the API has them, of those seconds, with ids and
// other such tokens of their own. They are made of the lines of file.
func Samples(t testing.TB, file string, times []int64) [][]byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	samples := strings.Split(strings.TrimSpace(string(data)), "\n")
	token := regexp.MustCompile(`\b[0-9a-f]{12,}\b|ex[0-9]{10,}`)
	at := regexp.MustCompile(`"effective_at":[0-9]+`)
	rnd := rand.New(rand.NewPCG(1, 2))
	var records [][]byte
	for i, second := range times {
		record := token.ReplaceAllStringFunc(samples[i%len(samples)], func(old string) string {
			if strings.Trim(old, "0123456789") == "" {
				return old // a number
			}
			return fmt.Sprintf("%016x%016x", rnd.Uint64(), rnd.Uint64())[:max(16, min(32, len(old)))]
		})
		records = append(records, []byte(at.ReplaceAllString(record, fmt.Sprintf(`"effective_at":%d`, second))))
	}
	return records
}
