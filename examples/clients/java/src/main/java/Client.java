import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ClientCalls;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.TreeMap;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import spectrald.v1.AnalysisOuterClass.Analysis;
import spectrald.v1.AnalysisOuterClass.AnalysisState;
import spectrald.v1.AnalysisOuterClass.CreateAnalysisRequest;
import spectrald.v1.AnalysisOuterClass.CreateAnalysisResponse;
import spectrald.v1.AnalysisOuterClass.StreamLayerResultsRequest;
import spectrald.v1.AnalysisOuterClass.StreamLayerResultsResponse;
import spectrald.v1.AnalysisOuterClass.WatchAnalysisRequest;
import spectrald.v1.AnalysisOuterClass.WatchAnalysisResponse;
import spectrald.v1.Layer.LayerResult;

/**
 * Asks a coordinator for an analysis, watches it, and prints each layer's alpha.
 *
 * <pre>
 *   mvn package
 *   java -jar target/client.jar 127.0.0.1:7600 /models/model.safetensors
 * </pre>
 *
 * Ends with 0, or with 1 and the reason on stderr. This is for a coordinator on loopback; elsewhere the credentials are
 * TlsChannelCredentials, and every call has the metadata "authorization: Bearer TOKEN".
 */
public final class Client {
    /** Tries of a call that finds nobody. */
    private static final int TRIES = 5;
    /** Tries of a watch without a message between: as long as a coordinator takes to start again. */
    private static final int WATCH_TRIES = 30;
    /** After which a watch is begun anew, so that a dead connection is noticed. */
    private static final int WATCH_SECONDS = 60;

    // The three calls. The generator of grpc-java, a native program, would write them; so the build needs protoc alone.
    private static final MethodDescriptor<CreateAnalysisRequest, CreateAnalysisResponse> CREATE = method(
            MethodDescriptor.MethodType.UNARY,
            "CreateAnalysis",
            CreateAnalysisRequest.getDefaultInstance(),
            CreateAnalysisResponse.getDefaultInstance());
    private static final MethodDescriptor<WatchAnalysisRequest, WatchAnalysisResponse> WATCH = method(
            MethodDescriptor.MethodType.SERVER_STREAMING,
            "WatchAnalysis",
            WatchAnalysisRequest.getDefaultInstance(),
            WatchAnalysisResponse.getDefaultInstance());
    private static final MethodDescriptor<StreamLayerResultsRequest, StreamLayerResultsResponse> ROWS = method(
            MethodDescriptor.MethodType.SERVER_STREAMING,
            "StreamLayerResults",
            StreamLayerResultsRequest.getDefaultInstance(),
            StreamLayerResultsResponse.getDefaultInstance());

    private final Channel channel;

    private Client(Channel channel) {
        this.channel = channel;
    }

    public static void main(String[] args) throws InterruptedException {
        if (args.length != 2) {
            System.err.println("usage: client ADDR MODEL");
            System.exit(2);
        }
        ManagedChannel channel = Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).build();
        int code = 0;
        try {
            new Client(channel).run(args[1]);
        } catch (StatusRuntimeException error) {
            System.err.println("error: " + explain(error));
            code = 1;
        } catch (IllegalStateException error) {
            System.err.println("error: " + error.getMessage());
            code = 1;
        } finally {
            channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
        }
        System.exit(code);
    }

    private void run(String model) {
        String id = create(model);
        System.out.println("analysis " + id);
        Analysis ended = watch(id);
        if (ended.getState() != AnalysisState.ANALYSIS_STATE_SUCCEEDED) {
            throw new IllegalStateException("the analysis ended as " + ended.getState() + ": "
                    + ended.getFailure().getMessage() + " (reason " + ended.getFailure().getReason() + ")");
        }
        report(rows(id));
    }

    /** The id of the new analysis. Thanks to request_id, a request that is sent twice makes one analysis. */
    private String create(String model) {
        CreateAnalysisRequest request = CreateAnalysisRequest.newBuilder()
                .setModel(model)
                .setRequestId(UUID.randomUUID().toString())
                .build();
        return retried(() -> ClientCalls.blockingUnaryCall(channel, CREATE, within(30), request)).getAnalysis().getId();
    }

    /** Follows the analysis to its end. A watch that breaks off is resumed where it was. */
    private Analysis watch(String id) {
        long sequence = 0;
        for (int silent = 0; ; silent++) {
            WatchAnalysisRequest request = WatchAnalysisRequest.newBuilder().setId(id).setAfterSequence(sequence).build();
            try {
                Iterator<WatchAnalysisResponse> messages =
                        ClientCalls.blockingServerStreamingCall(channel, WATCH, within(WATCH_SECONDS), request);
                while (messages.hasNext()) {
                    WatchAnalysisResponse message = messages.next();
                    sequence = message.getSequence();
                    silent = 0;
                    message.getLayersList().forEach(layer -> System.out.println("row: " + layer.getName()));
                    Analysis analysis = message.getAnalysis();
                    System.out.println(analysis.getState() + ": " + analysis.getProgress().getDone() + "/"
                            + analysis.getProgress().getLayers() + " layers");
                    switch (analysis.getState()) {
                        case ANALYSIS_STATE_SUCCEEDED, ANALYSIS_STATE_FAILED, ANALYSIS_STATE_CANCELLED -> {
                            return analysis;
                        }
                        default -> { }
                    }
                }
            } catch (StatusRuntimeException error) {
                Status.Code code = error.getStatus().getCode();
                boolean again = code == Status.Code.UNAVAILABLE || code == Status.Code.DEADLINE_EXCEEDED;
                if (!again || silent == WATCH_TRIES) {
                    throw error;
                }
            }
            pause(silent);
        }
    }

    /** All rows in the order of the model. A stream that breaks off is read again from its start. */
    private List<LayerResult> rows(String id) {
        StreamLayerResultsRequest request = StreamLayerResultsRequest.newBuilder().setId(id).build();
        return retried(() -> {
            List<LayerResult> layers = new ArrayList<>();
            ClientCalls.blockingServerStreamingCall(channel, ROWS, within(300), request)
                    .forEachRemaining(message -> layers.addAll(message.getLayersList()));
            return layers;
        });
    }

    /** Prints what has an alpha: a field that is absent does not apply, or could not be computed. */
    private static void report(List<LayerResult> layers) {
        double sum = 0;
        int count = 0;
        for (LayerResult layer : layers) {
            if (layer.hasAlpha()) {
                System.out.printf(Locale.ROOT, "%s %.6f%n", layer.getName(), layer.getAlpha());
                sum += layer.getAlpha();
                count++;
            }
        }
        System.out.printf(Locale.ROOT, "mean alpha %.6f over %d layers%n", sum / count, count);
    }

    private static <Q extends Message, A extends Message> MethodDescriptor<Q, A> method(
            MethodDescriptor.MethodType type, String name, Q request, A response) {
        return MethodDescriptor.<Q, A>newBuilder()
                .setType(type)
                .setFullMethodName(MethodDescriptor.generateFullMethodName("spectrald.v1.AnalysisService", name))
                .setRequestMarshaller(ProtoUtils.marshaller(request))
                .setResponseMarshaller(ProtoUtils.marshaller(response))
                .build();
    }

    private static CallOptions within(int seconds) {
        return CallOptions.DEFAULT.withDeadlineAfter(seconds, TimeUnit.SECONDS);
    }

    /** The call's answer; tried again while nobody is there. Every call of the API may be repeated. */
    private static <T> T retried(Supplier<T> call) {
        for (int attempt = 0; ; attempt++) {
            try {
                return call.get();
            } catch (StatusRuntimeException error) {
                if (error.getStatus().getCode() != Status.Code.UNAVAILABLE || attempt == TRIES - 1) {
                    throw error;
                }
                pause(attempt);
            }
        }
    }

    /** 0.1 to 1 s, with jitter so that many clients do not come back together. */
    private static void pause(int attempt) {
        double longest = Math.min(1000, 100 * Math.pow(2, attempt));
        try {
            Thread.sleep((long) (longest * ThreadLocalRandom.current().nextDouble(0.5, 1)));
        } catch (InterruptedException interrupted) {
            throw new IllegalStateException("interrupted", interrupted);
        }
    }

    /** The error's code, message, and what google.rpc.ErrorInfo says. */
    private static String explain(StatusRuntimeException error) {
        String said = "no details";
        for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
            if (detail.is(ErrorInfo.class)) {
                try {
                    ErrorInfo info = detail.unpack(ErrorInfo.class);
                    StringBuilder words = new StringBuilder("reason " + info.getReason() + ", domain " + info.getDomain());
                    new TreeMap<>(info.getMetadataMap()).forEach((key, value) -> words.append(", " + key + "=" + value));
                    said = words.toString();
                } catch (InvalidProtocolBufferException broken) {
                    said = "details that cannot be read";
                }
            }
        }
        return error.getStatus().getCode() + ": " + error.getStatus().getDescription() + " (" + said + ")";
    }
}
