"""The messages of a row and their fields, in a short form of the language in which Google describes its APIs.

A message is a list of fields, each with its type and its name in camelCase. `repeated T` is a list and `map T` an
object with any keys; at most one field of a `oneof` may be set. The three tables hold what both APIs know, and what
only one of them does: the tables of one API add fields to a message of the same name.

Source: https://ai.google.dev/api/generate-content, https://ai.google.dev/api/caching, https://ai.google.dev/api/embeddings,
https://cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/GenerateContentResponse and
https://cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/Tool
"""

from __future__ import annotations

BOTH = {
    "GenerateContentRequest": (
        "string model; repeated Content contents; Content systemInstruction; repeated Tool tools; "
        "ToolConfig toolConfig; repeated SafetySetting safetySettings; GenerationConfig generationConfig; "
        "string cachedContent; ServiceTier serviceTier; map string labels; bytes continuationToken"
    ),
    "EmbedContentRequest": (
        "string model; Content content; string taskType; string title; int32 outputDimensionality; "
        "EmbedContentConfig embedContentConfig"
    ),
    "EmbedContentConfig": (
        "string taskType; string title; int32 outputDimensionality; bool autoTruncate; bool documentOcr; "
        "bool audioTrackExtraction"
    ),
    # Contents
    "Content": "string role; repeated Part parts",
    "Part": (
        "oneof data {string text; Blob inlineData; FileData fileData; FunctionCall functionCall; "
        "FunctionResponse functionResponse; ExecutableCode executableCode; CodeExecutionResult codeExecutionResult; "
        "Transcription audioTranscription}; bool thought; bytes thoughtSignature; PartMediaResolution mediaResolution; "
        "VideoMetadata videoMetadata; SpeechMetadata speechMetadata; DocumentMetadata documentMetadata; "
        "SpreadsheetMetadata spreadsheetMetadata; AudioMetadata audioMetadata; MediaProcessing mediaProcessing"
    ),
    "Blob": "string mimeType; bytes data; string displayName",
    "FileData": "string mimeType; string fileUri; string displayName",
    "FunctionCall": "string id; string name; Struct args",
    "FunctionResponse": (
        "string id; string name; Struct response; repeated FunctionResponsePart parts; Scheduling scheduling"
    ),
    "FunctionResponsePart": (
        "oneof data {FunctionResponseBlob inlineData; FunctionResponseFileData fileData}; "
        "PartMediaResolution mediaResolution; VideoMetadata videoMetadata; DocumentMetadata documentMetadata; "
        "SpreadsheetMetadata spreadsheetMetadata; AudioMetadata audioMetadata"
    ),
    "FunctionResponseBlob": "string mimeType; bytes data; string displayName",
    "FunctionResponseFileData": "string mimeType; string fileUri; string displayName",
    "ExecutableCode": "string id; Language language; string code",
    "CodeExecutionResult": "string id; Outcome outcome; string output",
    "Transcription": (
        "string text; bool finished; string languageCode; string speakerLabel; repeated WordInfo words; "
        "Duration startOffset; Duration endOffset"
    ),
    "WordInfo": "string word; Duration startOffset; Duration endOffset",
    "PartMediaResolution": "PartMediaLevel level; int32 numTokens",
    "VideoMetadata": "Duration startOffset; Duration endOffset; double fps; repeated VideoLayer contentLayers",
    "SpeechMetadata": "string speaker; string style",
    "DocumentMetadata": "int32 startPage; int32 endPage; repeated DocumentLayer contentLayers",
    "SpreadsheetMetadata": "string visibleCells; int32 sheetIndex; repeated SheetLayer contentLayers",
    "AudioMetadata": "Duration startOffset; Duration endOffset",
    # Parameters
    "GenerationConfig": (
        "int32 candidateCount; repeated string stopSequences; int32 maxOutputTokens; float temperature; float topP; "
        "float topK; int32 seed; float presencePenalty; float frequencyPenalty; bool responseLogprobs; int32 logprobs; "
        "string responseMimeType; Schema responseSchema; Value responseJsonSchema; Value _responseJsonSchema; "
        "repeated Modality responseModalities; MediaResolution mediaResolution; SpeechConfig speechConfig; "
        "ThinkingConfig thinkingConfig; ImageConfig imageConfig; repeated ResponseFormat responseFormat; "
        "bool enableAffectiveDialog; TranslationConfig translationConfig; "
        "AudioTranscriptionConfig audioTranscriptionConfig"
    ),
    "Schema": (
        "Type type; string format; string title; string description; bool nullable; repeated string enum; "
        "int64 maxItems; int64 minItems; map Schema properties; repeated string required; int64 minProperties; "
        "int64 maxProperties; int64 minLength; int64 maxLength; string pattern; Value example; repeated Schema anyOf; "
        "repeated string propertyOrdering; Value default; Schema items; double minimum; double maximum"
    ),
    "ThinkingConfig": "bool includeThoughts; int32 thinkingBudget; ThinkingLevel thinkingLevel",
    "SpeechConfig": "VoiceConfig voiceConfig; MultiSpeakerVoiceConfig multiSpeakerVoiceConfig; string languageCode",
    "VoiceConfig": (
        "oneof voice_config {PrebuiltVoiceConfig prebuiltVoiceConfig; ReplicatedVoiceConfig replicatedVoiceConfig}; "
        "string voice"
    ),
    "PrebuiltVoiceConfig": "string voiceName",
    "ReplicatedVoiceConfig": "string mimeType; bytes voiceSampleAudio",
    "MultiSpeakerVoiceConfig": "repeated SpeakerVoiceConfig speakerVoiceConfigs",
    "SpeakerVoiceConfig": "string speaker; VoiceConfig voiceConfig",
    "ImageConfig": "string aspectRatio; string imageSize",
    "ResponseFormat": "TextFormat text; ImageFormat image; AudioFormat audio; VideoFormat video",
    "TextFormat": "string mimeType; Value schema",
    "ImageFormat": "AspectRatio aspectRatio; Delivery delivery; ImageSize imageSize; string mimeType",
    "AudioFormat": "int32 bitRate; Delivery delivery; string mimeType; int32 sampleRate",
    "VideoFormat": "AspectRatio aspectRatio; Delivery delivery; Duration duration; string gcsUri; string resolution",
    "TranslationConfig": "bool echoTargetLanguage; string targetLanguageCode",
    "AudioTranscriptionConfig": (
        "repeated string languageCodes; Empty languageAuto; LanguageHints languageHints; "
        "repeated string customVocabulary; repeated string adaptationPhrases; bool wordTimestamp; bool diarization; "
        "TranscriptionMode mode; string sourceText"
    ),
    "LanguageHints": "repeated string languageCodes",
    "SafetySetting": "HarmCategory category; HarmBlockThreshold threshold",
    # Tools
    "Tool": (
        "repeated FunctionDeclaration functionDeclarations; GoogleSearch googleSearch; "
        "GoogleSearchRetrieval googleSearchRetrieval; GoogleMaps googleMaps; Empty codeExecution; Empty urlContext; "
        "ComputerUse computerUse"
    ),
    "FunctionDeclaration": (
        "string name; string description; Behavior behavior; Schema parameters; Value parametersJsonSchema; "
        "Schema response; Value responseJsonSchema"
    ),
    "GoogleSearch": "Interval timeRangeFilter; SearchTypes searchTypes",
    "SearchTypes": "Empty webSearch; Empty imageSearch",
    "Interval": "Timestamp startTime; Timestamp endTime",
    "GoogleSearchRetrieval": "DynamicRetrievalConfig dynamicRetrievalConfig",
    "DynamicRetrievalConfig": "RetrievalMode mode; float dynamicThreshold",
    "GoogleMaps": "bool enableWidget; AuthConfig authConfig",
    "AuthConfig": "string apiKey",
    "ComputerUse": (
        "Environment environment; repeated string excludedPredefinedFunctions; bool enablePromptInjectionDetection; "
        "repeated SafetyPolicy disabledSafetyPolicies"
    ),
    "ToolConfig": "FunctionCallingConfig functionCallingConfig; RetrievalConfig retrievalConfig",
    "FunctionCallingConfig": "CallingMode mode; repeated string allowedFunctionNames",
    "RetrievalConfig": "LatLng latLng; string languageCode",
    "LatLng": "double latitude; double longitude",
    "Empty": "",
}
DEVELOPER = {
    "FileRow": "string key; GenerateContentRequest request",
    "FileEmbedRow": "string key; EmbedContentRequest request",
    "InlineRow": "Struct metadata; GenerateContentRequest request",
    "InlineEmbedRow": "Struct metadata; EmbedContentRequest request",
    "GenerateContentRequest": "bool store",
    "Part": ("oneof data {ToolCall toolCall; ToolResponse toolResponse}; Struct partMetadata"),
    "ToolCall": "string id; ToolType toolType; Struct args",
    "ToolResponse": "string id; ToolType toolType; Struct response",
    "FunctionResponse": "bool willContinue",
    "FunctionResponsePart": "MediaProcessing mediaProcessing",
    "GenerationConfig": "bool enableEnhancedCivicAnswers",
    "ReplicatedVoiceConfig": "bytes consentAudio; VoiceConsentSignature voiceConsentSignature",
    "VoiceConsentSignature": "string signature",
    "Tool": "FileSearch fileSearch; repeated McpServer mcpServers",
    "McpServer": "string name; StreamableHttpTransport streamableHttpTransport",
    "StreamableHttpTransport": (
        "string url; map string headers; Duration timeout; Duration sseReadTimeout; bool terminateOnClose"
    ),
    "FileSearch": "repeated string fileSearchStoreNames; int32 topK; string metadataFilter",
    "ToolConfig": "bool includeServerSideToolInvocations",
}
VERTEX = {
    "GenerateContentRequest": "ModelArmorConfig modelArmorConfig; Struct outputConfig",
    "ModelArmorConfig": "string promptTemplateName; string responseTemplateName",
    "FunctionCall": "repeated PartialArg partialArgs; bool willContinue",
    "PartialArg": (
        "string jsonPath; oneof delta {Value nullValue; double numberValue; string stringValue; bool boolValue}; "
        "bool willContinue"
    ),
    "GenerationConfig": (
        "bool audioTimestamp; RoutingConfig routingConfig; ModelConfig modelConfig; ModelConfig modelSelectionConfig; "
        "OutputConfig generationOutputConfig"
    ),
    "RoutingConfig": "oneof routing_config {AutoRouting autoMode; ManualRouting manualMode}",
    "AutoRouting": "RoutingPreference modelRoutingPreference",
    "ManualRouting": "string modelName",
    "ModelConfig": "FeaturePreference featureSelectionPreference",
    "OutputConfig": "string outputUriPrefix",
    "ImageConfig": (
        "string personGeneration; ProminentPeople prominentPeople; string outputMimeType; "
        "int32 outputCompressionQuality; ImageOutputOptions imageOutputOptions"
    ),
    "ImageOutputOptions": "string mimeType; int32 compressionQuality",
    "Schema": "Value additionalProperties; map Schema defs; string ref",
    "SafetySetting": "HarmBlockMethod method",
    "FunctionCallingConfig": "bool streamFunctionCallArguments",
    "Tool": (
        "Retrieval retrieval; EnterpriseWebSearch enterpriseWebSearch; ParallelAiSearch parallelAiSearch; "
        "ExaAiSearch exaAiSearch"
    ),
    "GoogleSearch": "PhishBlockThreshold blockingConfidence; repeated string excludeDomains",
    "EnterpriseWebSearch": "PhishBlockThreshold blockingConfidence; repeated string excludeDomains",
    "ParallelAiSearch": "string apiKey; Struct customConfigs; bool enableDataRetention; bool enableZeroDataRetention",
    "ExaAiSearch": "string apiKey; Struct customConfigs",
    "GoogleMaps": "GroundingTypes groundingTypes",
    "GroundingTypes": "Empty places; Empty routing",
    "AuthConfig": (
        "ApiKeyConfig apiKeyConfig; AuthType authType; ServiceAccountConfig googleServiceAccountConfig; "
        "BasicAuthConfig httpBasicAuthConfig; OauthConfig oauthConfig; OidcConfig oidcConfig"
    ),
    "ApiKeyConfig": "string name; string apiKeySecret; string apiKeyString; ElementLocation httpElementLocation",
    "ServiceAccountConfig": "string serviceAccount",
    "BasicAuthConfig": "string credentialSecret",
    "OauthConfig": "string accessToken; string serviceAccount",
    "OidcConfig": "string idToken; string serviceAccount",
    "Retrieval": (
        "oneof source {VertexAiSearch vertexAiSearch; VertexRagStore vertexRagStore; ExternalApi externalApi}; "
        "bool disableAttribution"
    ),
    "VertexAiSearch": (
        "string datastore; string engine; int32 maxResults; string filter; repeated DataStoreSpec dataStoreSpecs"
    ),
    "DataStoreSpec": "string dataStore; string filter",
    "VertexRagStore": (
        "repeated string ragCorpora; repeated RagResource ragResources; int32 similarityTopK; "
        "double vectorDistanceThreshold; RagRetrievalConfig ragRetrievalConfig; bool storeContext"
    ),
    "RagResource": "string ragCorpus; repeated string ragFileIds",
    "RagRetrievalConfig": "int32 topK; HybridSearch hybridSearch; RagFilter filter; RagRanking ranking",
    "HybridSearch": "float alpha",
    "RagFilter": "double vectorDistanceThreshold; double vectorSimilarityThreshold; string metadataFilter",
    "RagRanking": "oneof ranking_config {NamedModel rankService; NamedModel llmRanker}",
    "NamedModel": "string modelName",
    "ExternalApi": (
        "ApiSpec apiSpec; string endpoint; ApiAuth apiAuth; AuthConfig authConfig; "
        "oneof params {Empty simpleSearchParams; ElasticSearchParams elasticSearchParams}"
    ),
    "ApiAuth": "ApiAuthKeyConfig apiKeyConfig",
    "ApiAuthKeyConfig": "string apiKeySecretVersion; string apiKeyString",
    "ElasticSearchParams": "string index; string searchTemplate; int32 numHits",
}

ENUMS = {
    "ServiceTier": "unspecified standard flex priority",
    "Scheduling": "SCHEDULING_UNSPECIFIED SILENT WHEN_IDLE INTERRUPT",
    "Language": "LANGUAGE_UNSPECIFIED PYTHON",
    "Outcome": "OUTCOME_UNSPECIFIED OUTCOME_OK OUTCOME_FAILED OUTCOME_DEADLINE_EXCEEDED",
    "PartMediaLevel": (
        "MEDIA_RESOLUTION_UNSPECIFIED MEDIA_RESOLUTION_LOW MEDIA_RESOLUTION_MEDIUM MEDIA_RESOLUTION_HIGH "
        "MEDIA_RESOLUTION_ULTRA_HIGH"
    ),
    "MediaResolution": (
        "MEDIA_RESOLUTION_UNSPECIFIED MEDIA_RESOLUTION_LOW MEDIA_RESOLUTION_MEDIUM MEDIA_RESOLUTION_HIGH"
    ),
    "MediaProcessing": "MEDIA_PROCESSING_UNSPECIFIED STATIC AGENTIC",
    "VideoLayer": "CONTENT_LAYER_UNSPECIFIED FRAMES AUDIO TRANSCRIPT",
    "DocumentLayer": "CONTENT_LAYER_UNSPECIFIED PAGE_IMAGE PAGE_TEXT",
    "SheetLayer": "CONTENT_LAYER_UNSPECIFIED DATA FORMULAS VISUAL",
    "Modality": "MODALITY_UNSPECIFIED TEXT IMAGE AUDIO VIDEO",
    "Type": "TYPE_UNSPECIFIED STRING NUMBER INTEGER BOOLEAN ARRAY OBJECT NULL",
    "ThinkingLevel": "THINKING_LEVEL_UNSPECIFIED LOW MEDIUM HIGH MINIMAL XHIGH",
    "AspectRatio": (
        "ASPECT_RATIO_UNSPECIFIED ASPECT_RATIO_ONE_BY_ONE ASPECT_RATIO_TWO_BY_THREE ASPECT_RATIO_THREE_BY_TWO "
        "ASPECT_RATIO_THREE_BY_FOUR ASPECT_RATIO_FOUR_BY_THREE ASPECT_RATIO_FOUR_BY_FIVE ASPECT_RATIO_FIVE_BY_FOUR "
        "ASPECT_RATIO_NINE_BY_SIXTEEN ASPECT_RATIO_SIXTEEN_BY_NINE ASPECT_RATIO_TWENTY_ONE_BY_NINE "
        "ASPECT_RATIO_ONE_BY_EIGHT ASPECT_RATIO_EIGHT_BY_ONE ASPECT_RATIO_ONE_BY_FOUR ASPECT_RATIO_FOUR_BY_ONE"
    ),
    "ImageSize": ("IMAGE_SIZE_UNSPECIFIED IMAGE_SIZE_FIVE_TWELVE IMAGE_SIZE_ONE_K IMAGE_SIZE_TWO_K IMAGE_SIZE_FOUR_K"),
    "Delivery": "DELIVERY_UNSPECIFIED INLINE URI",
    "TranscriptionMode": "MODE_UNSPECIFIED VERBATIM SMART",
    "HarmCategory": (
        "HARM_CATEGORY_UNSPECIFIED HARM_CATEGORY_DEROGATORY HARM_CATEGORY_TOXICITY HARM_CATEGORY_VIOLENCE "
        "HARM_CATEGORY_SEXUAL HARM_CATEGORY_MEDICAL HARM_CATEGORY_DANGEROUS HARM_CATEGORY_HARASSMENT "
        "HARM_CATEGORY_HATE_SPEECH HARM_CATEGORY_SEXUALLY_EXPLICIT HARM_CATEGORY_DANGEROUS_CONTENT "
        "HARM_CATEGORY_CIVIC_INTEGRITY HARM_CATEGORY_JAILBREAK HARM_CATEGORY_IMAGE_HATE "
        "HARM_CATEGORY_IMAGE_DANGEROUS_CONTENT HARM_CATEGORY_IMAGE_HARASSMENT HARM_CATEGORY_IMAGE_SEXUALLY_EXPLICIT"
    ),
    "HarmBlockThreshold": (
        "HARM_BLOCK_THRESHOLD_UNSPECIFIED BLOCK_LOW_AND_ABOVE BLOCK_MEDIUM_AND_ABOVE BLOCK_ONLY_HIGH BLOCK_NONE OFF"
    ),
    "HarmBlockMethod": "HARM_BLOCK_METHOD_UNSPECIFIED SEVERITY PROBABILITY",
    "Behavior": "UNSPECIFIED BLOCKING NON_BLOCKING",
    "RetrievalMode": "MODE_UNSPECIFIED MODE_DYNAMIC",
    "Environment": "ENVIRONMENT_UNSPECIFIED ENVIRONMENT_BROWSER ENVIRONMENT_MOBILE ENVIRONMENT_DESKTOP",
    "SafetyPolicy": (
        "SAFETY_POLICY_UNSPECIFIED FINANCIAL_TRANSACTIONS SENSITIVE_DATA_MODIFICATION COMMUNICATION_TOOL "
        "ACCOUNT_CREATION DATA_MODIFICATION USER_CONSENT_MANAGEMENT LEGAL_TERMS_AND_AGREEMENTS"
    ),
    "CallingMode": "MODE_UNSPECIFIED AUTO ANY NONE VALIDATED",
    "ToolType": (
        "TOOL_TYPE_UNSPECIFIED GOOGLE_SEARCH_WEB GOOGLE_SEARCH_IMAGE URL_CONTEXT GOOGLE_MAPS FILE_SEARCH "
        "MEDIA_PROCESSING"
    ),
    "RoutingPreference": "UNKNOWN PRIORITIZE_QUALITY BALANCED PRIORITIZE_COST",
    "FeaturePreference": "FEATURE_SELECTION_PREFERENCE_UNSPECIFIED PRIORITIZE_QUALITY BALANCED PRIORITIZE_COST",
    "ProminentPeople": "PROMINENT_PEOPLE_UNSPECIFIED ALLOW_PROMINENT_PEOPLE BLOCK_PROMINENT_PEOPLE",
    "PhishBlockThreshold": (
        "PHISH_BLOCK_THRESHOLD_UNSPECIFIED BLOCK_LOW_AND_ABOVE BLOCK_MEDIUM_AND_ABOVE BLOCK_HIGH_AND_ABOVE "
        "BLOCK_HIGHER_AND_ABOVE BLOCK_VERY_HIGH_AND_ABOVE BLOCK_ONLY_EXTREMELY_HIGH"
    ),
    "AuthType": (
        "AUTH_TYPE_UNSPECIFIED NO_AUTH API_KEY_AUTH HTTP_BASIC_AUTH GOOGLE_SERVICE_ACCOUNT_AUTH OAUTH OIDC_AUTH"
    ),
    "ElementLocation": ("HTTP_IN_UNSPECIFIED HTTP_IN_QUERY HTTP_IN_HEADER HTTP_IN_PATH HTTP_IN_BODY HTTP_IN_COOKIE"),
    "ApiSpec": "API_SPEC_UNSPECIFIED SIMPLE_SEARCH ELASTIC_SEARCH",
}
