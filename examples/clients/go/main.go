// Asks a coordinator for an analysis, watches it, and prints each layer's alpha.
//
//	go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.11
//	go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
//	go install github.com/bufbuild/buf/cmd/buf@v1.75.0
//	(cd ../../.. && buf generate)                       # writes gen/
//	go run . 127.0.0.1:7600 /models/model.safetensors
//
// Ends with 0, or with 1 and the reason on stderr. This is for a coordinator on loopback; elsewhere the channel has TLS
// credentials, and every call the metadata "authorization: Bearer TOKEN".
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"sort"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "spectrald.example/client/gen/spectrald/v1"
)

const (
	// tries of a call that finds nobody
	tries = 5
	// watchTries of a watch without a message between: as long as a coordinator takes to start again
	watchTries = 30
	// watchFor is the time after which a watch is begun anew, so that a dead connection is noticed.
	watchFor = time.Minute
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: client ADDR MODEL")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "error: "+explain(err))
		os.Exit(1)
	}
}

func run(ctx context.Context, addr, model string) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := pb.NewAnalysisServiceClient(conn)
	id, err := create(ctx, client, model)
	if err != nil {
		return err
	}
	fmt.Println("analysis", id)
	ended, err := watch(ctx, client, id)
	if err != nil {
		return err
	}
	if ended.State != pb.AnalysisState_ANALYSIS_STATE_SUCCEEDED {
		failure := ended.GetFailure()
		return fmt.Errorf("the analysis ended as %s: %s (reason %s)", ended.State, failure.GetMessage(), failure.GetReason())
	}
	layers, err := rows(ctx, client, id)
	if err != nil {
		return err
	}
	report(layers)
	return nil
}

// create asks for the analysis. Thanks to request_id, a request that is sent twice makes one analysis.
func create(ctx context.Context, client pb.AnalysisServiceClient, model string) (id string, err error) {
	request := &pb.CreateAnalysisRequest{Model: model, RequestId: newUUID()}
	err = retried(func() error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		answer, err := client.CreateAnalysis(ctx, request)
		id = answer.GetAnalysis().GetId()
		return err
	})
	return id, err
}

// watch follows the analysis to its end. A watch that breaks off is resumed where it was.
func watch(ctx context.Context, client pb.AnalysisServiceClient, id string) (*pb.Analysis, error) {
	var sequence uint64
	for silent := 0; ; silent++ {
		ended, last, err := watchOnce(ctx, client, id, sequence)
		if ended != nil {
			return ended, nil
		}
		if last > sequence {
			sequence, silent = last, 0
		}
		code := status.Code(err)
		if err != nil && (code != codes.Unavailable && code != codes.DeadlineExceeded || silent == watchTries) {
			return nil, err
		}
		pause(silent)
	}
}

// watchOnce gives the analysis once it has ended, or the last sequence number and why the watch broke off.
func watchOnce(ctx context.Context, client pb.AnalysisServiceClient, id string, after uint64) (*pb.Analysis, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, watchFor)
	defer cancel()
	stream, err := client.WatchAnalysis(ctx, &pb.WatchAnalysisRequest{Id: id, AfterSequence: after})
	if err != nil {
		return nil, after, err
	}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, after, nil
		}
		if err != nil {
			return nil, after, err
		}
		after = message.Sequence
		for _, layer := range message.Layers {
			fmt.Println("row:", layer.Name)
		}
		analysis := message.Analysis
		fmt.Printf("%s: %d/%d layers\n", analysis.State, analysis.GetProgress().GetDone(), analysis.GetProgress().GetLayers())
		switch analysis.State {
		case pb.AnalysisState_ANALYSIS_STATE_SUCCEEDED, pb.AnalysisState_ANALYSIS_STATE_FAILED, pb.AnalysisState_ANALYSIS_STATE_CANCELLED:
			return analysis, after, nil
		}
	}
}

// rows are all rows in the order of the model. A stream that breaks off is read again from its start.
func rows(ctx context.Context, client pb.AnalysisServiceClient, id string) (layers []*pb.LayerResult, err error) {
	err = retried(func() error {
		layers = nil
		ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
		defer cancel()
		stream, err := client.StreamLayerResults(ctx, &pb.StreamLayerResultsRequest{Id: id})
		if err != nil {
			return err
		}
		for {
			message, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			layers = append(layers, message.Layers...)
		}
	})
	return layers, err
}

// report prints what has an alpha: a field that is absent does not apply, or could not be computed.
func report(layers []*pb.LayerResult) {
	var sum float64
	var count int
	for _, layer := range layers {
		if layer.Alpha == nil {
			continue
		}
		fmt.Printf("%s %.6f\n", layer.Name, *layer.Alpha)
		sum += *layer.Alpha
		count++
	}
	fmt.Printf("mean alpha %.6f over %d layers\n", sum/float64(count), count)
}

// retried tries a call again while nobody is there. Every call of the API may be repeated.
func retried(call func() error) error {
	for attempt := 0; ; attempt++ {
		err := call()
		if status.Code(err) != codes.Unavailable || attempt == tries-1 {
			return err
		}
		pause(attempt)
	}
}

// pause is 0.1 to 1 s, with jitter so that many clients do not come back together.
func pause(attempt int) {
	longest := min(time.Second, 100*time.Millisecond<<min(attempt, 4))
	time.Sleep(longest/2 + mathrand.N(longest/2))
}

// explain gives the error's code, message, and what google.rpc.ErrorInfo says.
func explain(err error) string {
	from, ok := status.FromError(err)
	if !ok {
		return err.Error()
	}
	said := "no details"
	for _, detail := range from.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			places := []string{}
			for key, value := range info.Metadata {
				places = append(places, key+"="+value)
			}
			sort.Strings(places)
			said = strings.Join(append([]string{"reason " + info.Reason, "domain " + info.Domain}, places...), ", ")
		}
	}
	return fmt.Sprintf("%s: %s (%s)", from.Code(), from.Message(), said)
}

// newUUID is a random UUID (version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&15|64, b[8]&63|128
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
